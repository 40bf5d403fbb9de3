//! The laws of the codebase: who imports whom, where SQL may stand, how long a file may be.

// A test that cannot go on says why and stops.
#![allow(clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn imports_go_downwards_only() {
    let rooms = [
        ("error.rs", vec![]),
        ("model", vec!["error"]),
        ("store", vec!["model", "error", "fault", "store"]),
        ("broker", vec!["model", "error", "broker"]),
        ("sink", vec!["broker", "model", "error", "sink"]),
        (
            "relay",
            vec!["engine", "store", "sink", "model", "error", "fault"],
        ),
        ("testing", vec!["sink", "model"]),
        ("engine", vec!["store", "model", "error", "guard", "fault"]),
        (
            "handler",
            vec!["engine", "store", "model", "error", "guard"],
        ),
        ("web", vec!["handler", "engine", "model", "error", "store"]),
        ("client.rs", vec!["error"]),
        ("__private.rs", vec!["handler", "engine", "model", "error"]),
    ];
    let mut wrong = Vec::new();
    for (room, allowed) in rooms {
        let files = sources(&runtime().join(room));
        assert!(!files.is_empty(), "{room} is gone");
        for file in files {
            for import in imports(&code(&file)) {
                if import != own_room(room) && !allowed.contains(&import.as_str()) {
                    wrong.push(format!("{} imports {import}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_database_imports_another() {
    for room in ["postgres", "mysql", "sqlite"] {
        for file in sources(&runtime().join("store").join(room)) {
            for other in ["postgres::", "mysql::", "sqlite::"]
                .iter()
                .filter(|other| !other.starts_with(room))
            {
                let text = code(&file);
                assert!(
                    !text.contains(&format!("super::super::{other}"))
                        && !text.contains(&format!("store::{other}")),
                    "{}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn the_databases_have_the_same_files_and_verbs() {
    let shape = |room: &str| {
        let mut shape: Vec<String> = Vec::new();
        for file in sources(&runtime().join("store").join(room)) {
            shape.push(
                file.strip_prefix(runtime().join("store").join(room))
                    .expect("below")
                    .display()
                    .to_string(),
            );
        }
        let verbs = code(&runtime().join("store").join(room).join("mod.rs"));
        let verbs = verbs
            .split("impl Verbs for")
            .nth(1)
            .expect("an impl")
            .split("\n}\n")
            .next()
            .expect("its end");
        shape.extend(verbs.lines().filter_map(|line| {
            line.trim()
                .strip_prefix("async fn ")?
                .split('(')
                .next()
                .map(str::to_owned)
        }));
        shape
    };
    assert_eq!(shape("postgres"), shape("mysql"));
    assert_eq!(shape("postgres"), shape("sqlite"));
}

#[test]
fn sql_stands_in_the_store_only() {
    let marks = [
        "sqlx::query",
        "raw_sql",
        "INSERT INTO",
        "DELETE FROM",
        "SELECT ",
        "UPDATE ",
    ];
    for file in sources(&runtime()) {
        if file.starts_with(runtime().join("store")) {
            continue;
        }
        let text = code(&file);
        for mark in marks {
            assert!(!text.contains(mark), "{} holds {mark:?}", file.display());
        }
    }
}

#[test]
fn files_are_short() {
    let mut all = sources(&runtime());
    all.extend(sources(&top().join("macros/src")));
    all.extend(sources(&top().join("cli/src")));
    let long: Vec<_> = all
        .iter()
        .filter(|file| fs::read_to_string(file).expect("a source").lines().count() > 400)
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

/// What it says to its broker, and how it understands the answers, is in the room `broker`. A webhook has no broker.
#[test]
fn the_sink_of_a_broker_is_one_short_file() {
    let sinks = runtime().join("sink");
    let mut wrong = Vec::new();
    for file in sources(&sinks) {
        let product = product(&file);
        let is_short = product.lines().count() < 250 || file == sinks.join("mod.rs"); // the port itself
        let is_all = product.contains(" Sink for ") || file.ends_with("mod.rs");
        if !is_short || !(is_all || file.starts_with(sinks.join("webhook"))) {
            wrong.push(file);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_below_the_sinks_is_short_too() {
    let long: Vec<_> = sources(&runtime().join("broker"))
        .into_iter()
        .filter(|file| product(file).lines().count() >= 250)
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn no_broker_imports_another() {
    let brokers = ["kafka", "mqtt", "nats", "rabbitmq", "redis", "sqs"];
    for room in ["broker", "sink"] {
        for file in sources(&runtime().join(room)) {
            let of_file = |broker: &str| file.to_string_lossy().contains(broker);
            let text = code(&file);
            for other in brokers.iter().filter(|other| !of_file(other)) {
                assert!(
                    !text.contains(&format!("broker::{other}"))
                        && !text.contains(&format!("sink::{other}")),
                    "{} imports {other}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn nothing_that_runs_in_production_unwraps() {
    let mut all = sources(&runtime());
    all.extend(sources(&top().join("macros/src")));
    for file in all.iter().filter(|file| !file.ends_with("tests.rs")) {
        let text = code(file);
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        for mark in [".unwrap()", ".expect(", "todo!(", "dbg!("] {
            assert!(!product.contains(mark), "{} holds {mark:?}", file.display());
        }
    }
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn runtime() -> PathBuf {
    top().join("runtime/src")
}

fn own_room(room: &str) -> &str {
    room.trim_end_matches(".rs")
}

/// The Rust files at or below a path, sorted.
fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let mut files: Vec<_> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flat_map(|entry| sources(&entry.expect("an entry").path()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    files.sort();
    files
}

/// A file without its tests.
fn product(file: &Path) -> String {
    let mut text = fs::read_to_string(file).expect("a source");
    text.truncate(text.find("#[cfg(test)]").unwrap_or(text.len()));
    text
}

/// The text without comments.
fn code(file: &Path) -> String {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The rooms that a file names by `crate::`.
fn imports(text: &str) -> Vec<String> {
    // What a macro's expansion names is named by its user.
    let text = text.replace("$crate::", "");
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut rooms = Vec::new();
    for part in product.split("crate::").skip(1) {
        let names = match part.strip_prefix('{') {
            // The first word of each item of a group, at any depth of the group's own braces.
            Some(group) => first_words(group),
            None => vec![first_word(part)],
        };
        rooms.extend(names.into_iter().filter(|name| {
            name.chars()
                .next()
                .is_some_and(|first| first.is_lowercase() || first == '_')
        }));
    }
    rooms
}

fn first_words(group: &str) -> Vec<String> {
    let (mut depth, mut words, mut start) = (0, Vec::new(), true);
    for (place, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            letter if start && depth == 0 && !letter.is_whitespace() => {
                words.push(first_word(&group[place..]));
                start = false;
            }
            _ => {}
        }
    }
    words
}

fn first_word(text: &str) -> String {
    text.chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect()
}
