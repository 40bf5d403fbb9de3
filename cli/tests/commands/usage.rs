//! Exit codes, and what is said when it cannot begin.

use std::io::Read;
use std::net::TcpListener;
use std::process::Stdio;

use crate::kit::{OperatorDb, effectively, ledger, on, program};
use effectively_tests::{TestDb, on_every_database};

on_every_database!(missing_tables_end_with_4);
on_every_database!([sqlite] a_reader_that_leaves_early_is_no_failure);

#[test]
fn help_tells_the_exit_codes_and_hides_the_url() {
    let url = "postgres://ada:secret@localhost/shop";
    let output = program(&["--help"]).env("DATABASE_URL", url).output();
    let help = String::from_utf8(output.expect("the program").stdout).expect("text");
    for line in [
        "2  wrong usage or configuration",
        "4  its tables are missing",
    ] {
        assert!(help.contains(line), "{help}");
    }
    assert!(!help.contains("secret"), "{help}");
}

#[test]
fn wrong_usage_ends_with_2() {
    let wrong: &[(&[&str], &str)] = &[
        (&["status"], "DATABASE_URL"),
        (
            &["--database-url", "oracle://ada:secret@db/x", "status"],
            "postgres://",
        ),
        (
            &[
                "--database-url",
                "postgres://ada:secret@host:99999999/x",
                "status",
            ],
            "not one that its driver reads",
        ),
        (
            &[
                "--database-url",
                "sqlite:x",
                "--table-prefix",
                "A;",
                "status",
            ],
            "a table prefix is",
        ),
        (&["dead-letters", "retry"], "required"),
        (
            &["dead-letters", "retry", "1", "--all"],
            "cannot be used with",
        ),
        (&["keys", "show"], "--id"),
        (&["keys", "show", "part"], "--scope"),
        (&["relay"], "--config"),
        (&["explode"], "unrecognized"),
    ];
    for (arguments, message) in wrong {
        let ran = effectively(arguments).ends(2);
        assert!(ran.err.contains(message), "{arguments:?}: {ran:?}");
        assert!(!ran.err.contains("secret") && ran.out.is_empty(), "{ran:?}");
    }
}

#[test]
fn a_database_that_is_not_there_ends_with_3() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its number").port();
    drop(listener);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("none.db");
    for url in [
        format!("postgres://ada:secret@127.0.0.1:{port}/shop"),
        format!("mysql://ada:secret@127.0.0.1:{port}/shop"),
        format!("sqlite:{}", file.display()),
    ] {
        let ran = effectively(&["--database-url", &url, "status"]).ends(3);
        assert!(ran.err.starts_with("error: the database"), "{ran:?}");
        assert!(!ran.err.contains("secret"), "{ran:?}");
    }
    assert!(!file.exists(), "a file for a mistyped name");
}

async fn missing_tables_end_with_4<DB: OperatorDb>(db: TestDb<DB>) {
    // The file of SQLite is made by the first connection of the test.
    db.execute("select 1").await;
    for arguments in [
        &["status"][..],
        &["dead-letters", "list"],
        &["keys", "interrupted"],
        &["purge"],
        &["doctor"],
    ] {
        let ran = on(&db, arguments).ends(4);
        let said = format!("{}{}", ran.out, ran.err);
        assert!(said.contains("effectively migrate"), "{ran:?}");
    }
}

async fn a_reader_that_leaves_early_is_no_failure<DB: OperatorDb>(db: TestDb<DB>) {
    ledger(&db).await;
    let mut child = program(&["--database-url", db.url(), "status", "--leases"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    drop(child.stdout.take());
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("its stderr");
    stderr.read_to_string(&mut said).expect("text");
    assert_eq!(child.wait().expect("its end").code(), Some(0), "{said}");
    assert_eq!(said, "");
}

/// Without a database of its own: the file does not exist before.
#[test]
fn migrate_makes_a_file_where_the_url_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!(
        "sqlite:{}?mode=rwc",
        directory.path().join("new.db").display()
    );
    effectively(&["--database-url", &url, "migrate"]).ends(0);
    effectively(&["--database-url", &url, "status"]).ends(0);
}
