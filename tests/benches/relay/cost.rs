//! What an event costs the database: statements and bytes of WAL.
//!
//! The WAL is the whole server's: nobody else may write to it meanwhile. It holds full pages, since each measurement begins with
//! a checkpoint, of the relay as of the bare loop.

use effectively::{Ledger, Relay};
use effectively_tests::TestDb;
use sqlx::{Connection, PgConnection, Postgres};
use std::time::Duration;

use super::report::{Summary, table};
use super::running::{self, Running};
use super::sinks::{Count, Memory};
use super::{limit, shop};

const EVENTS: u64 = 50_000;
const CALLS: u64 = 5_000;
const BATCHES: [usize; 2] = [100, 500];

/// Watches from another database, whose sessions do not count.
struct Meter {
    session: PgConnection,
    database: String,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    statements: i64,
    wal: i64,
}

pub async fn measure(summary: &mut Summary) {
    let mut rows = Vec::new();
    for batch in BATCHES {
        let relay = drained(batch, true).await;
        let limit = drained(batch, false).await;
        for (name, cost) in [("relay", relay), ("bare loop", limit)] {
            rows.push(vec![
                format!("draining, batch {batch}, {name}"),
                format!("{:.1}", cost.statements),
                format!("{:.0}", cost.wal),
            ]);
        }
        summary.lines.push(format!(
            "cost: batch={batch} statements_per_1000={:.1} statements_limit={:.1} wal_bytes_per_event={:.0} wal_limit={:.0}",
            relay.statements, limit.statements, relay.wal, limit.wal
        ));
    }
    for (what, at_once, events) in [
        ("in calls of 500", 500, EVENTS),
        ("in calls of one, with the claim", 1, CALLS),
    ] {
        let cost = inserted(at_once, events).await;
        rows.push(vec![
            format!("inserting, {what}"),
            format!("{:.1}", cost.statements),
            format!("{:.0}", cost.wal),
        ]);
        summary.lines.push(format!(
            "cost: insert={at_once} wal_bytes_per_event={:.0}",
            cost.wal
        ));
    }
    table(
        "Cost to PostgreSQL: events of 200 B; statements are transactions, leases and idle looks included; WAL with full pages",
        &["", "statements per 1,000 events", "WAL bytes per event"],
        &rows,
    );
}

/// Of one event, or of a thousand.
#[derive(Debug, Clone, Copy)]
struct Cost {
    statements: f64,
    wal: f64,
}

async fn drained(batch: usize, with_relay: bool) -> Cost {
    let db = TestDb::<Postgres>::new().await;
    let ledger = shop::open(&db).await;
    shop::fill(&db, &ledger, EVENTS).await;
    let mut meter = Meter::of(&db, &ledger).await;
    let before = meter.read().await;
    let ledger = Ledger::new(shop::pool(&db));
    if with_relay {
        let count = Count::default();
        let relay = Relay::builder(ledger.clone())
            .route("*", count.of(Memory))
            .batch(batch);
        let relay = Running::start(relay);
        // No question to the database, which would count.
        running::until(async || count.now() >= EVENTS).await;
        relay.stop().await;
    } else {
        let batch = i64::try_from(batch).expect("small");
        limit::drain(ledger.pool(), Memory, batch, EVENTS).await;
    }
    meter.since(before, &ledger, EVENTS).await
}

async fn inserted(at_once: u64, events: u64) -> Cost {
    let db = TestDb::<Postgres>::new().await;
    let ledger = shop::open(&db).await;
    db.execute("checkpoint").await;
    let mut meter = Meter::of(&db, &ledger).await;
    let before = meter.read().await;
    let ledger = Ledger::new(shop::pool(&db));
    if at_once == 1 {
        for number in 0..events {
            shop::emit_one(&ledger, number).await;
        }
    } else {
        shop::insert(&ledger, events).await;
    }
    meter.since(before, &ledger, events).await
}

impl Meter {
    /// Ends the sessions that have prepared the database: a session counts its last statements when it ends.
    async fn of(db: &TestDb<Postgres>, ledger: &Ledger<Postgres>) -> Self {
        ledger.pool().close().await;
        db.admin().close().await;
        let options = db.options(None);
        let database = options.get_database().expect("a database").to_owned();
        let session = PgConnection::connect_with(&options.database("postgres")).await;
        Self {
            session: session.expect("a session"),
            database,
        }
    }

    async fn since(mut self, before: Reading, ledger: &Ledger<Postgres>, events: u64) -> Cost {
        ledger.pool().close().await;
        let after = self.read().await;
        let of_each = |count: i64| count as f64 / events as f64;
        Cost {
            statements: of_each(after.statements - before.statements) * 1e3,
            wal: of_each(after.wal - before.wal),
        }
    }

    /// Once the number of statements stands still.
    async fn read(&mut self) -> Reading {
        let (mut reading, mut same) = (self.look().await, 0);
        while same < 5 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let next = self.look().await;
            same = if next.statements == reading.statements {
                same + 1
            } else {
                0
            };
            reading = next;
        }
        reading
    }

    async fn look(&mut self) -> Reading {
        let sql = "select xact_commit, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint \
                   from pg_stat_database where datname = $1";
        let query = sqlx::query_as(sql).bind(&self.database);
        let (statements, wal) = query.fetch_one(&mut self.session).await.expect("a row");
        Reading { statements, wal }
    }
}
