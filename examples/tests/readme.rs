//! The transcript in `examples/README.md` is what a user of the order server sees.

// A test that cannot go on says why and stops: here that is the right thing to do. And one line says what was skipped.
#![allow(clippy::expect_used, clippy::print_stderr)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const PAGE: &str = include_str!("../README.md");
const ADDRESS: &str = "http://127.0.0.1:8080";

#[test]
fn the_transcript_of_the_page_is_true_of_axum() {
    check(env!("CARGO_BIN_EXE_axum_orders"), false);
}

#[test]
fn the_transcript_of_the_page_is_true_of_actix() {
    check(env!("CARGO_BIN_EXE_actix_orders"), true);
}

#[test]
fn the_transcript_of_the_page_is_true_of_poem() {
    check(env!("CARGO_BIN_EXE_poem_orders"), true);
}

#[test]
fn the_transcript_of_the_page_is_true_of_salvo() {
    check(env!("CARGO_BIN_EXE_salvo_orders"), true);
}

/// The page is axum's word for word. Other servers may send the same headers in another order.
fn check(program: &str, any_order: bool) {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIPPED: the transcript of examples/README.md, because `curl` is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let database = format!("sqlite:{}", folder.path().join("orders.db").display());
    let server = Server::start(program, &database);
    let mut compared = 0;
    for (command, expected) in steps() {
        let shown = run(&command.replace(ADDRESS, &server.address));
        assert!(
            matches(&expected, &shown, any_order),
            "$ {command}\nthe page says:\n{expected}\nthe server says:\n{shown}"
        );
        compared += 1;
    }
    assert!(compared > 5, "only {compared} steps");
}

/// The commands of the page, each with what it is said to print.
fn steps() -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    for block in PAGE.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        for line in block.lines() {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push((command.to_owned(), String::new())),
                (None, Some((_, expected))) => *expected += &format!("{line}\n"),
                (None, None) => panic!("a block begins with a command"),
            }
        }
    }
    steps
}

fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output();
    let output = output.expect("a shell").stdout;
    String::from_utf8(output).expect("text").replace('\r', "")
}

/// `…` stands for anything within a line.
fn matches(expected: &str, shown: &str, any_order: bool) -> bool {
    let lines = |text: &str| -> Vec<String> {
        let mut lines: Vec<_> = text.trim_end().lines().map(str::to_owned).collect();
        if any_order {
            lines.sort();
            // actix hangs up on a request whose body it has not read.
            lines.retain(|line| line != "connection: close");
        }
        lines
    };
    let (expected, shown) = (lines(expected), lines(shown));
    expected.len() == shown.len()
        && expected
            .iter()
            .zip(&shown)
            .all(|(expected, shown)| match expected.split_once('…') {
                None => expected == shown,
                Some((head, tail)) => {
                    shown.len() > head.len() + tail.len()
                        && shown.starts_with(head)
                        && shown.ends_with(tail)
                }
            })
}

struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(program: &str, database: &str) -> Self {
        let mut process = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--database-url", database])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server");
        let mut line = String::new();
        let out = process.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on ");
        let address = address.expect("its address").to_owned();
        Self { process, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
