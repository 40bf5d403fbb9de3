//! `tests/CONTRACT.md` names every row, and every test that it names is there.

use std::fs;
use std::path::{Path, PathBuf};

use effectively_tests::{NamedTest, rows};

/// Rows of the draft and corner cases.
fn numbers() -> impl Iterator<Item = String> {
    let draft = (1..=28).map(|number| format!("I{number}"));
    draft.chain((1..=56).map(|number| number.to_string()))
}

#[test]
fn every_row_stands_once_and_in_order() {
    let page = page();
    let found: Vec<_> = rows(&page).iter().map(|[row, _, _]| *row).collect();
    assert_eq!(found, numbers().collect::<Vec<_>>());
}

#[test]
fn every_row_is_held_by_a_test_that_exists_or_says_why_not() {
    let page = page();
    let mut named = 0;
    for [row, what, held] in rows(&page) {
        assert!(!what.is_empty(), "{row}");
        let mut count = 0;
        for test in NamedTest::all_of(held) {
            assert!(test.is_in(&test.source(&top())), "{row}: no {test:?}");
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
