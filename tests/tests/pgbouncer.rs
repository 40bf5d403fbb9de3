//! Behind PgBouncer in transaction mode: a session serves one client after the other, and keeps nothing between.

// A test that cannot go on says why and stops.
#![allow(clippy::expect_used)]

use std::env;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use effectively::{Emit, ErrorKind, Event, Failure, Key, Ledger, Outcome};
use effectively_tests::{TestDb, TestServer, eventually, on_every_database};
use serde::Serialize;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgConnection, PgPool, Postgres};
use tokio::task::JoinSet;

on_every_database!([postgres] calls_behind_a_transaction_pooler_happen_once);

const KEYS: usize = 40;

async fn calls_behind_a_transaction_pooler_happen_once<DB: TestServer>(db: TestDb<DB>) {
    let Some(pool) = pool_behind_the_bouncer(db.url()) else {
        return;
    };
    // Tables are made on a direct connection, as the guide says.
    let direct = PgPool::connect(db.url()).await.expect("a direct pool");
    Ledger::new(direct)
        .migrate()
        .await
        .expect("the toolkit's tables");
    db.execute("create table orders (item text not null)").await;

    // Before version 1.21 the pooler knows no prepared statements: nothing may need one.
    let build = || {
        let ledger = Ledger::builder(pool.clone()).payload_literals(true);
        ledger.build().expect("a ledger")
    };
    // Two ledgers know nothing of each other, as two processes.
    let (one, other) = (build(), build());
    let runs = Arc::new(AtomicUsize::new(0));
    let mut calls = JoinSet::new();
    for call in 0..4 * KEYS {
        let ledger = if call % 2 == 0 {
            one.clone()
        } else {
            other.clone()
        };
        let runs = runs.clone();
        calls.spawn(async move {
            let key = format!("key {}", call / 4);
            // Only a quarter of the pool waits for the other ledger; the rest is told to come again.
            loop {
                match order(&ledger, &runs, &key).await {
                    Err(Failure::Toolkit(error)) if *error.kind() == ErrorKind::InFlight => {
                        tokio::task::yield_now().await;
                    }
                    answer => return answer,
                }
            }
        });
    }
    for answer in calls.join_all().await {
        answer.expect("an answer");
    }
    assert_eq!(runs.load(Ordering::SeqCst), KEYS);
    assert_eq!(
        db.number("select count(distinct item) from orders").await,
        KEYS as i64
    );
    assert_eq!(db.number("select count(*) from orders").await, KEYS as i64);
    assert_eq!(
        db.number("select count(*) from effectively_outbox").await,
        KEYS as i64
    );
    eventually(Duration::from_secs(5), async || {
        db.busy_sessions().await == 0
    })
    .await;
}

async fn order(
    ledger: &Ledger<Postgres>,
    runs: &AtomicUsize,
    key: &str,
) -> Result<Outcome<String>, Failure<sqlx::Error>> {
    ledger
        .call(Key::new("orders", &[&key]).expect("a key"))
        .wait(Duration::from_secs(20))
        .run_with_events(async |tx: &mut PgConnection| {
            runs.fetch_add(1, Ordering::SeqCst);
            sqlx::query("insert into orders values ($1)")
                .bind(key)
                .persistent(false)
                .execute(tx)
                .await?;
            Ok(Emit::new(key.to_owned()).event(Ordered {
                item: key.to_owned(),
            }))
        })
        .await
}

#[derive(Serialize, Event)]
#[event(topic = "orders", name = "order.placed.v1", key = "{item}")]
struct Ordered {
    item: String,
}

/// `None` when the bouncer is not there and nobody said that it would be.
fn pool_behind_the_bouncer(direct: &str) -> Option<PgPool> {
    const VARIABLE: &str = "EFFECTIVELY_TEST_PGBOUNCER";
    let Ok(bouncer) = env::var(VARIABLE) else {
        assert!(
            env::var("EFFECTIVELY_TEST_SERVERS").is_err(),
            "{VARIABLE} is not set although servers were promised"
        );
        // Written past libtest's capture, so that it is seen although the test passes.
        let _ = writeln!(
            io::stderr(),
            "SKIPPED calls_behind_a_transaction_pooler_happen_once: {VARIABLE} is not set; ./tests/run starts a server"
        );
        return None;
    };
    let direct: PgConnectOptions = direct.parse().expect("a URL");
    let bouncer: PgConnectOptions = bouncer.parse().expect("a URL");
    let options = bouncer.database(direct.get_database().expect("a database"));
    Some(
        PgPoolOptions::new()
            .max_connections(30)
            .test_before_acquire(false)
            .connect_lazy_with(options),
    )
}
