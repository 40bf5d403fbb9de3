//! What becomes of the relay while somebody holds a snapshot, so that the server cannot clean up behind it.

use std::time::Duration;

use effectively::Relay;
use effectively_tests::TestDb;
use sqlx::{Connection, PgConnection, Postgres};

use super::args::Args;
use super::load::{self, Times};
use super::report::{Summary, percentile, table};
use super::running::Running;
use super::shop;
use super::sinks::Memory;

const RATE: u64 = 1_000;

pub async fn measure(args: &Args, summary: &mut Summary) {
    let (held, free, window) = if args.short {
        (20, 20, 5)
    } else {
        (120, 60, 20)
    };
    let mut rows = Vec::new();
    for (held, seconds) in [(true, held), (false, free)] {
        rows.push(run(held, seconds, window, summary).await);
    }
    let title = format!(
        "{RATE} calls/s with a REPEATABLE READ snapshot held for all {held} s, and without for {free} s: the first and the last \
         {window} s, to memory, relay in the same process, PostgreSQL"
    );
    let head = [
        "snapshot",
        "first events/s",
        "last events/s",
        "first p99 ms",
        "last p99 ms",
        "dead in outbox",
        "dead in leases",
        "missing",
    ];
    table(&title, &head, &rows);
}

async fn run(held: bool, seconds: u64, window: u64, summary: &mut Summary) -> Vec<String> {
    let db = TestDb::<Postgres>::new().await;
    let ledger = shop::open(&db).await;
    let times = Times::new(RATE, Duration::from_secs(seconds));
    let relay = Relay::builder(ledger.clone()).route("*", times.of(Memory));
    let relay = Running::start(relay);
    let snapshot = if held { Some(hold(&db).await) } else { None };
    load::run(&ledger, &times).await;
    relay.stop().await;
    // A session counts what it has left when it ends.
    ledger.pool().close().await;
    let outbox = dead(&db, "effectively_outbox").await;
    let leases = dead(&db, "effectively_leases").await;
    drop(snapshot);

    let at = Duration::from_secs;
    let first = times.lags(at(0), at(window));
    let last = times.lags(at(seconds - window), at(seconds));
    let speed = |lags: &[Duration]| lags.len() as f64 / window as f64;
    let (first_speed, last_speed) = (speed(&first), speed(&last));
    let (first_p99, last_p99) = (percentile(&first, 0.99), percentile(&last, 0.99));
    let held = if held { "yes" } else { "no" };
    summary.lines.push(format!(
        "snapshot: held={held} seconds={seconds} first_per_s={first_speed:.0} last_per_s={last_speed:.0} \
         first_p99_ms={first_p99:.2} last_p99_ms={last_p99:.2} dead_outbox={outbox} dead_leases={leases}"
    ));
    vec![
        if held == "yes" { "held" } else { "none" }.to_owned(),
        format!("{first_speed:.0}"),
        format!("{last_speed:.0}"),
        format!("{first_p99:.2}"),
        format!("{last_p99:.2}"),
        outbox.to_string(),
        leases.to_string(),
        times.missing().to_string(),
    ]
}

/// A session of another application, for example a report or a backup.
async fn hold(db: &TestDb<Postgres>) -> PgConnection {
    let options = db.options(None);
    let mut session = PgConnection::connect_with(&options)
        .await
        .expect("a session");
    // The snapshot is taken by the first question.
    let sql = "begin isolation level repeatable read; select count(*) from effectively_outbox";
    sqlx::raw_sql(sql)
        .execute(&mut session)
        .await
        .expect("a snapshot");
    session
}

async fn dead(db: &TestDb<Postgres>, table: &str) -> i64 {
    let sql = format!("select n_dead_tup from pg_stat_user_tables where relname = '{table}'");
    db.number(&sql).await
}
