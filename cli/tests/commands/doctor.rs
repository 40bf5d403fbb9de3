//! `effectively doctor`: what is wrong is found, and what is fine is not called wrong.

use std::env;

use effectively_tests::{TestDb, on_every_database};
use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::kit::{File, OperatorDb, effectively, ledger, on, orders, refuse_all};

on_every_database!(
    a_good_database_has_no_errors,
    what_lies_in_the_tables_is_judged,
    a_newer_and_an_older_version_are_told_apart,
    a_scope_that_two_functions_use_is_a_warning,
);
on_every_database!([sqlite] the_mode_of_the_journal_is_judged, a_relay_s_configuration_is_judged);
on_every_database!([postgres] a_commit_that_is_not_durable_is_an_error, a_pooler_is_found);

/// The level of a check, and its words.
fn finding(report: &Value, check: &str) -> (String, String) {
    let findings = report["findings"].as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["check"] == check);
    let found = found.unwrap_or_else(|| panic!("{check} in {report:#}"));
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    if text("level") != "ok" && text("level") != "not_checked" {
        assert_ne!(text("advice"), "", "{found}");
    }
    (text("level"), text("what"))
}

fn level(report: &Value, check: &str) -> String {
    finding(report, check).0
}

async fn a_good_database_has_no_errors<DB: OperatorDb>(db: TestDb<DB>) {
    ledger(&db).await;
    let ran = on(&db, &["doctor", "--json"]).ends(0);
    let report = ran.json();
    for check in [
        "server",
        "tables",
        "events",
        "leases",
        "dead_letters",
        "interrupted_keys",
        "expired_claims",
        "expired_events",
        "scopes",
    ] {
        assert_eq!(level(&report, check), "ok", "{report:#}");
    }
    assert!(!ran.out.contains("\"error\""), "{report:#}");
    let text = on(&db, &["doctor"]).ends(0).out;
    assert!(
        text.lines().all(|line| line.starts_with("ok ")
            || line.starts_with("warning ")
            || line.starts_with("not checked ")
            || line.trim_start().starts_with("->")),
        "{text}"
    );
}

async fn what_lies_in_the_tables_is_judged<DB: OperatorDb>(db: TestDb<DB>) {
    let ledger = ledger(&db).await;
    orders(&ledger, 0..3).await;
    refuse_all(&ledger).await;
    let report = on(&db, &["doctor", "--json"]).ends(0).json();
    assert_eq!(level(&report, "dead_letters"), "warning");
    on(&db, &["doctor", "--strict"]).ends(1);

    orders(&ledger, 3..5).await;
    let earlier = match DB::NAME {
        "PostgreSQL" => "available_at - interval '10 minutes'",
        "MySQL" => "available_at - interval 10 minute",
        _ => "available_at - 600000",
    };
    db.execute(&format!(
        "update effectively_outbox set available_at = {earlier}"
    ))
    .await;
    let report = on(&db, &["doctor", "--json"]).ends(1).json();
    let (level_of, what) = finding(&report, "events");
    assert_eq!(level_of, "error");
    assert!(
        what.contains("2 events due") && what.contains("no relay"),
        "{what}"
    );

    let (id, later) = match DB::NAME {
        "PostgreSQL" => (
            "'00000000-0000-0000-0000-000000000007'",
            "now() + interval '1 minute'",
        ),
        "MySQL" => (
            "X'00000000000000000000000000000007'",
            "utc_timestamp(6) + interval 1 minute",
        ),
        _ => ("X'00000000000000000000000000000007'", "9999999999999"),
    };
    let lease = format!(
        "update effectively_leases set holder = {id}, expires_at = {later} where partition_no < 2"
    );
    db.execute(&lease).await;
    let report = on(&db, &["doctor", "--json"]).ends(1).json();
    let (level_of, what) = finding(&report, "leases");
    assert_eq!(
        (level_of.as_str(), what.as_str()),
        ("warning", "2 leases of relays that are not alive any more")
    );
    db.execute(&format!(
        "insert into effectively_relays (id, expires_at) values ({id}, {later})"
    ))
    .await;
    let report = on(&db, &["doctor", "--json"]).ends(0).json();
    assert_eq!(
        (level(&report, "leases"), level(&report, "events")),
        ("ok".into(), "warning".into())
    );
}

async fn a_newer_and_an_older_version_are_told_apart<DB: OperatorDb>(db: TestDb<DB>) {
    ledger(&db).await;
    db.execute("update effectively_migrations set version = 9999 where version = 1")
        .await;
    let report = on(&db, &["doctor", "--json"]).ends(0).json();
    assert_eq!(level(&report, "tables"), "warning");
    db.execute("delete from effectively_migrations where version > 2")
        .await;
    db.execute("update effectively_migrations set version = 1 where version = 2")
        .await;
    let ran = on(&db, &["doctor", "--json"]).ends(4);
    assert_eq!(level(&ran.json(), "tables"), "error");
    let status = on(&db, &["status"]).ends(4);
    assert!(status.err.contains("at version 1"), "{status:?}");
}

async fn a_scope_that_two_functions_use_is_a_warning<DB: OperatorDb>(db: TestDb<DB>) {
    ledger(&db).await;
    let now = match DB::NAME {
        "PostgreSQL" => "now()",
        "MySQL" => "utc_timestamp(6)",
        _ => "(julianday('now') - 2440587.5) * 86400000",
    };
    for (scope, path) in [
        ("orders.place", "shop::place"),
        ("orders.cancel", "shop::cancel"),
        ("orders.place", "depot::put"),
    ] {
        db.execute(&format!(
            "insert into effectively_scopes (scope, path, place, seen_at) \
             values ('{scope}', '{path}', '{path} (orders.rs:7)', {now})"
        ))
        .await;
    }
    let report = on(&db, &["doctor", "--json"]).ends(0).json();
    assert_eq!(
        finding(&report, "scopes"),
        (
            "warning".into(),
            "`orders.place` is used by depot::put (orders.rs:7) and shop::place (orders.rs:7)"
                .into()
        )
    );
}

async fn the_mode_of_the_journal_is_judged<DB: OperatorDb>(db: TestDb<DB>) {
    ledger(&db).await;
    let wal = on(&db, &["doctor", "--json"]).ends(0).json();
    assert_eq!(
        finding(&wal, "journal_mode"),
        ("ok".into(), "journal_mode = wal".into())
    );
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!(
        "sqlite:{}?mode=rwc",
        directory.path().join("plain.db").display()
    );
    effectively(&["--database-url", &url, "migrate"]).ends(0);
    let plain = effectively(&["--database-url", &url, "doctor", "--json"])
        .ends(0)
        .json();
    assert_eq!(level(&plain, "journal_mode"), "warning");
}

async fn a_relay_s_configuration_is_judged<DB: OperatorDb>(db: TestDb<DB>) {
    ledger(&db).await;
    let doctor = |text: &str| {
        let file = File::holding(&format!(
            "{text}\n[[route]]\ntopics = \"orders\"\nsink = {{ type = \"stdout\" }}\n"
        ));
        on(&db, &["doctor", "--json", "--config", file.path()])
    };
    let report = doctor("[relay]\nconcurrency = 6").ends(0).json();
    assert_eq!(
        finding(&report, "pool"),
        ("ok".into(), "9 connections at a concurrency of 6".into())
    );
    let report = doctor("[database]\npool = 4").ends(0).json();
    assert_eq!(level(&report, "pool"), "warning");
    let wrong = doctor("[database]\npool = \"many\"").ends(2);
    assert!(wrong.err.contains(":2:8:"), "{wrong:?}");
    doctor("[database]\npool = 0").ends(2);
}

async fn a_commit_that_is_not_durable_is_an_error<DB: OperatorDb>(db: TestDb<DB>) {
    ledger(&db).await;
    let name = db.texts("select current_database()::text").await.remove(0);
    db.execute(&format!(
        "alter database {name} set synchronous_commit = off"
    ))
    .await;
    let report = on(&db, &["doctor", "--json"]).ends(1).json();
    assert_eq!(level(&report, "synchronous_commit"), "error");
    assert_eq!(
        level(&report, "fsync"),
        if db.texts("show fsync").await == ["on"] {
            "ok"
        } else {
            "error"
        }
    );
}

async fn a_pooler_is_found<DB: OperatorDb>(db: TestDb<DB>) {
    ledger(&db).await;
    let direct = on(&db, &["doctor", "--json"]).json();
    let checks: Vec<_> = direct["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|finding| finding["check"].clone())
        .collect();
    assert!(!checks.contains(&json!("pooler")), "{direct:#}");
    let Ok(bouncer) = env::var("EFFECTIVELY_TEST_PGBOUNCER") else {
        return;
    };
    let bouncer: PgConnectOptions = bouncer.parse().expect("a URL");
    let there: PgConnectOptions = db.url().parse().expect("a URL");
    let through = bouncer
        .database(there.get_database().expect("a database"))
        .to_url_lossy();
    let report = effectively(&["--database-url", through.as_str(), "doctor", "--json"]).json();
    assert_eq!(level(&report, "pooler"), "warning");
}
