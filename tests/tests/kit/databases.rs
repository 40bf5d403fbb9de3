//! Each test has a database of its own, on each server; a missing server is seen.

use std::env;
use std::process::{Command, Output};
use std::time::Duration;

use effectively_tests::{TestDb, TestServer, eventually, on_every_database};

on_every_database!(
    a_test_sees_no_other_tests_tables,
    an_open_transaction_is_seen,
    a_second_pool_is_another_one
);
on_every_database!([postgres, mysql] nothing_stays_behind);
on_every_database!([sqlite] sqlite_is_set_up_as_promised);

async fn a_test_sees_no_other_tests_tables<DB: TestServer>(db: TestDb<DB>) {
    let other = TestDb::<DB>::new().await;
    for (db, rows) in [(&db, 1), (&other, 2)] {
        db.execute("create table orders (id bigint primary key)")
            .await;
        for id in 0..rows {
            assert_eq!(
                db.execute(&format!("insert into orders values ({id})"))
                    .await,
                1
            );
        }
    }
    assert_eq!(db.number("select count(*) from orders").await, 1);
    assert_eq!(
        other.texts("select 'two' from orders").await,
        ["two", "two"]
    );
}

async fn an_open_transaction_is_seen<DB: TestServer>(db: TestDb<DB>) {
    db.execute("create table orders (id bigint primary key)")
        .await;
    let mut tx = db.pool().begin().await.expect("a transaction");
    DB::execute(&mut tx, "insert into orders values (1)")
        .await
        .expect("an order");
    if DB::VARIABLE.is_some() {
        // Another one may just be on its way back into its pool.
        eventually(Duration::from_secs(5), async || {
            match db.busy_sessions().await {
                1 => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }
    tx.rollback().await.expect("a rollback");
    eventually(Duration::from_secs(5), async || {
        db.busy_sessions().await == 0
    })
    .await;
}

async fn a_second_pool_is_another_one<DB: TestServer>(db: TestDb<DB>) {
    let one = db.pool_with(1, None);
    let _held = one.acquire().await.expect("the only connection");
    assert!(one.try_acquire().is_none());
    db.pool()
        .acquire()
        .await
        .expect("a connection of the other pool");
    assert_eq!(db.number("select count(*) from (select 1) as one").await, 1);
}

async fn nothing_stays_behind<DB: TestServer>(db: TestDb<DB>) {
    let databases = match DB::NAME {
        "PostgreSQL" => "select datname::text from pg_database",
        _ => "select schema_name from information_schema.schemata",
    };
    let other = TestDb::<DB>::new().await;
    let path = other.url().split('?').next().expect("a path");
    let name = path.rsplit('/').next().expect("a name").to_owned();
    other
        .execute("create table orders (id bigint primary key)")
        .await;
    assert!(db.texts(databases).await.contains(&name), "{name}");

    // Even with a session that sits in a transaction on it.
    let held = other.pool().begin().await.expect("a transaction");
    drop(other);
    assert!(!db.texts(databases).await.contains(&name), "{name}");
    drop(held);
}

async fn sqlite_is_set_up_as_promised<DB: TestServer>(db: TestDb<DB>) {
    assert_eq!(db.texts("pragma journal_mode").await, ["wal"]);
    assert_eq!(db.number("pragma foreign_keys").await, 1);
    assert_eq!(db.number("pragma synchronous").await, 2, "FULL");
}

#[test]
fn a_missing_server_is_seen_although_the_test_passes() {
    let output = without_postgres(None);
    assert!(output.status.success());
    let seen = String::from_utf8_lossy(&output.stderr);
    let line = "SKIPPED databases::a_second_pool_is_another_one::postgres: EFFECTIVELY_TEST_POSTGRES is not set; ./tests/run starts a server";
    assert!(seen.lines().any(|printed| printed == line), "{seen}");
}

#[test]
fn a_missing_server_that_was_promised_is_a_failure() {
    assert!(!without_postgres(Some("1")).status.success());
}

/// Runs a test of this file as `cargo test` does, output captured, without its server.
fn without_postgres(servers_are_started: Option<&str>) -> Output {
    let mut command = Command::new(env::current_exe().expect("this test binary"));
    command.args([
        "--exact",
        "databases::a_second_pool_is_another_one::postgres",
    ]);
    command
        .env_remove("EFFECTIVELY_TEST_POSTGRES")
        .env_remove("EFFECTIVELY_TEST_SERVERS");
    command.envs(servers_are_started.map(|value| ("EFFECTIVELY_TEST_SERVERS", value)));
    command.output().expect("a second run")
}
