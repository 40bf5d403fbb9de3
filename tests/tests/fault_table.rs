//! `tests/FAULTS.md` names every class of faults, and on each database a test that is there and runs on it, or the reason for none.

// A test that cannot go on says why and stops.
#![allow(clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use effectively_tests::{NamedTest, rows};

/// What a cell without a test begins with.
const WITHOUT_TEST: &[&str] = &["- "];

/// The columns after the two that say what happens and what holds.
const DATABASES: [&str; 3] = ["postgres", "mysql", "sqlite"];

/// The classes, in the order of the page. A row is never removed with the test that held it.
const CLASSES: [&str; 36] = [
    "transaction-gone",
    "session-settings",
    "session-clock",
    "replaced-database",
    "uncommitted-reads",
    "answer-read-back",
    "fingerprint-equality",
    "scope-shared",
    "parked-keys",
    "unwritable-reason",
    "innocent-event",
    "dead-task",
    "hanging-event",
    "different-routes",
    "tenants-apart",
    "wrong-server",
    "truncated-tables",
    "silent-database",
    "literal-formats",
    "server-modes",
    "time-limits",
    "checked-constraints",
    "commit-trigger",
    "half-migrated",
    "statement-texts",
    "names-and-rights",
    "too-large",
    "compile-time",
    "process-clock",
    "moved-rows",
    "stale-lease",
    "overwritten-answer",
    "primary-killed",
    "primary-read-only",
    "cluster-writers",
    "cluster-quorum",
];

#[test]
fn every_class_stands_once_and_in_order() {
    let page = page();
    let found: Vec<_> = rows::<6>(&page).iter().map(|[class, ..]| *class).collect();
    assert_eq!(found, CLASSES.map(|class| format!("`{class}`")));
}

#[test]
fn every_class_is_held_by_a_test_on_each_database_or_says_why_not() {
    let page = page();
    let mut named = 0;
    for [class, fault, holds, cells @ ..] in rows::<6>(&page) {
        let cells: [&str; 3] = cells;
        assert!(!fault.is_empty() && !holds.is_empty(), "{class}");
        for (database, cell) in DATABASES.into_iter().zip(cells) {
            let mut count = 0;
            for test in NamedTest::all_of(cell) {
                let source = test.source(&top());
                assert!(test.is_in(&source), "{class}: no {test:?}");
                assert!(
                    test.runs_on(database, &source),
                    "{class}: {test:?} is not run on {database}"
                );
                count += 1;
            }
            let is_explained = WITHOUT_TEST.iter().any(|begin| cell.starts_with(begin));
            assert!(count > 0 || is_explained, "{class}, {database}: {cell}");
            named += count;
        }
    }
    assert!(named > 0, "a table without a test");
}

/// A check that finds nothing is worth nothing.
#[test]
fn a_test_is_found_on_its_databases_only() {
    let source = "on_every_database!(one, two);\non_every_database!([postgres, mysql] three);\n\
        async fn one<DB>() {}\nasync fn three<DB>() {}\n#[tokio::test]\nasync fn four() {}\nfn five() {}\n";
    let runs = |name: &str, database: &str| {
        let cell = format!("`tests/a.rs::{name}`, as `well`");
        let tests: Vec<_> = NamedTest::all_of(&cell).collect();
        let [test] = tests[..] else {
            panic!("{tests:?}")
        };
        test.is_in(source) && test.runs_on(database, source)
    };
    for (name, on) in [
        ("one", [true, true, true]),
        ("two", [false, false, false]),
        ("three", [true, true, false]),
        ("four", [true, true, true]),
        ("five", [false, false, false]),
        ("thre", [false, false, false]),
    ] {
        assert_eq!(DATABASES.map(|database| runs(name, database)), on, "{name}");
    }
}

fn page() -> String {
    fs::read_to_string(top().join("tests/FAULTS.md")).expect("the page")
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
