//! `effectively migrate` and `effectively status`

use std::time::Duration;

use effectively::Emit;
use effectively_tests::{TestDb, on_every_database};
use serde_json::json;

use crate::kit::{Mail, OperatorDb, Placed, effectively, emit, ledger, on, orders, refuse_all};

on_every_database!(
    migrating_twice_changes_nothing,
    the_status_counts_what_there_is
);
on_every_database!([postgres] names_and_schema_are_found_again);

async fn migrating_twice_changes_nothing<DB: OperatorDb>(db: TestDb<DB>) {
    db.execute("select 1").await;
    let first = on(&db, &["migrate", "--json"]).ends(0).json();
    assert_eq!(first["database"], DB::NAME);
    assert!(first["from"].is_null() && first["to"].is_i64(), "{first}");
    let second = on(&db, &["migrate", "--json"]).ends(0).json();
    assert_eq!(second["from"], first["to"]);
    assert_eq!(second["to"], first["to"]);
    let text = on(&db, &["migrate"]).ends(0).out;
    assert!(text.contains("already"), "{text}");
}

async fn the_status_counts_what_there_is<DB: OperatorDb>(db: TestDb<DB>) {
    let ledger = ledger(&db).await;
    let empty = on(&db, &["--json", "status"]).ends(0).json();
    let nothing =
        json!({ "pending": 0, "due": 0, "delayed": 0, "retrying": 0, "oldest_due_ms": 0 });
    assert_eq!(empty["events"], nothing);
    orders(&ledger, 0..2).await;
    refuse_all(&ledger).await;
    orders(&ledger, 2..5).await;
    let later = Emit::new(())
        .event(Mail("hello"))
        .event_after(Duration::from_secs(3600), Placed { order: 9 });
    emit(&ledger, later).await;
    let status = on(&db, &["status", "--json", "--leases"]).ends(0).json();
    let events = &status["events"];
    assert_eq!(
        (&events["pending"], &events["due"], &events["delayed"]),
        (&json!(5), &json!(4), &json!(1)),
        "{status}"
    );
    assert!(events["oldest_due_ms"].is_u64(), "{status}");
    assert_eq!(status["dead_letters"], 2);
    assert_eq!(status["relays"], 0);
    assert_eq!(status["leases"]["free"], 64);
    let partitions = status["leases"]["partitions"].as_array().expect("a list");
    assert_eq!(partitions.len(), 64);
    assert!(partitions.iter().all(|lease| lease["holder"].is_null()));
    let text = on(&db, &["status"]).ends(0).out;
    assert!(text.starts_with("events            5\n"), "{text}");
}

async fn names_and_schema_are_found_again<DB: OperatorDb>(db: TestDb<DB>) {
    let url = [
        "--database-url",
        db.url(),
        "--schema",
        "toolkit",
        "--table-prefix",
        "once_",
    ];
    let with = |command: &[&'static str]| effectively(&[&url[..], command].concat());
    with(&["migrate"]).ends(0);
    with(&["status"]).ends(0);
    on(&db, &["status"]).ends(4);
    let tables = "select count(*) from information_schema.tables where table_schema = 'toolkit' and table_name = 'once_outbox'";
    assert_eq!(db.number(tables).await, 1);
}
