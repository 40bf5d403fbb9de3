//! `tests/CONTRACT.md` names every row, and every test that it names is there.

use std::fs;
use std::path::{Path, PathBuf};

/// Rows of the draft and corner cases.
fn rows() -> impl Iterator<Item = String> {
    let draft = (1..=28).map(|number| format!("I{number}"));
    draft.chain((1..=56).map(|number| number.to_string()))
}

/// The cells of each line of the table.
fn lines(page: &str) -> Vec<[&str; 3]> {
    let table = page.lines().filter(|line| line.starts_with("| "));
    let cells = table.map(|line| {
        let cells = line.trim_matches('|').split(" | ");
        let cells: Vec<_> = cells.map(str::trim).collect();
        cells
            .try_into()
            .unwrap_or_else(|_| panic!("not three cells: {line}"))
    });
    cells.skip(1).collect()
}

#[test]
fn every_row_stands_once_and_in_order() {
    let page = page();
    let found: Vec<_> = lines(&page).iter().map(|[row, ..]| *row).collect();
    assert_eq!(found, rows().collect::<Vec<_>>());
}

#[test]
fn every_row_is_held_by_a_test_that_exists_or_says_why_not() {
    let page = page();
    let mut named = 0;
    for [row, what, held] in lines(&page) {
        assert!(!what.is_empty(), "{row}");
        let tests = held
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|code| code.contains(".rs::"));
        let mut count = 0;
        for test in tests {
            let (file, name) = test.split_once("::").expect("a file and a name");
            let source = fs::read_to_string(top().join(file));
            let source = source.unwrap_or_else(|error| panic!("{row}: {file}: {error}"));
            let is_there = source
                .match_indices(&format!("fn {name}"))
                .any(|(place, found)| source[place + found.len()..].starts_with(['(', '<']));
            assert!(is_there, "{row}: no fn {name} in {file}");
            count += 1;
        }
        assert!(count > 0 || held.starts_with("no test: "), "{row}: {held}");
        named += count;
    }
    assert!(named > 84, "{named}");
}

fn page() -> String {
    fs::read_to_string(top().join("tests/CONTRACT.md")).expect("the page")
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
