//! Events per second out of a full outbox, by sink and batch, beside the bare loop.

use std::time::{Duration, Instant};

use effectively::{Ledger, Relay, RelayBuilder, Route};
use effectively_tests::TestDb;
use sqlx::Postgres;

use super::args::Args;
use super::report::{median, table};
use super::sinks::{self, Produce};
use super::{limit, shop};

const BATCHES: [usize; 4] = [1, 10, 100, 500];
const ROUNDS: usize = 3;

/// Enough for a second or more.
fn events(batch: usize) -> u64 {
    match batch {
        0..=1 => 2_000,
        2..=10 => 10_000,
        11..=100 => 50_000,
        _ => 150_000,
    }
}

pub async fn measure(args: &Args, lines: &mut Vec<String>, left_out: &mut Vec<String>) {
    if args.on("memory") {
        of_sink("memory", lines, left_out, sinks::memory).await;
    }
}

async fn of_sink<P: Produce>(
    name: &str,
    lines: &mut Vec<String>,
    left_out: &mut Vec<String>,
    open: impl AsyncFn() -> Result<(Route, P), String>,
) {
    let mut rows = Vec::new();
    for batch in BATCHES {
        let (mut relayed, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (route, producer) = match open().await {
                Ok(opened) => opened,
                Err(why) => return left_out.push(format!("{name}: {why}")),
            };
            limits.push(bare(batch, producer).await);
            relayed.push(one_relay(batch, route).await);
        }
        let ratios = relayed
            .iter()
            .zip(&limits)
            .map(|(relay, limit)| relay / limit);
        let ratio = median(ratios.collect());
        let (relayed, limit) = (median(relayed), median(limits));
        rows.push(vec![
            batch.to_string(),
            format!("{relayed:.0}"),
            format!("{limit:.0}"),
            format!("{ratio:.2}"),
        ]);
        lines.push(format!(
            "drain: sink={name} batch={batch} events_per_s={relayed:.0} limit={limit:.0}"
        ));
    }
    table(
        &format!("Draining to {name}: events of 200 B, 1,000 keys, PostgreSQL, median of {ROUNDS}"),
        &["batch", "relay/s", "bare loop/s", "ratio"],
        &rows,
    );
}

async fn bare(batch: usize, producer: impl Produce) -> f64 {
    let db = TestDb::<Postgres>::new().await;
    let ledger = shop::open(&db).await;
    shop::fill(&db, &ledger, events(batch)).await;
    let batch_rows = i64::try_from(batch).expect("small");
    limit::drain(ledger.pool(), producer, batch_rows, events(batch)).await
}

async fn one_relay(batch: usize, route: Route) -> f64 {
    let db = TestDb::<Postgres>::new().await;
    let ledger = shop::open(&db).await;
    shop::fill(&db, &ledger, events(batch)).await;
    let relay = Relay::builder(ledger.clone())
        .route("*", route)
        .batch(batch);
    drained(&ledger, vec![relay], events(batch)).await
}

/// One relay, and four with a pool each, on the same outbox.
pub async fn one_against_four() {
    let mut rows = Vec::new();
    for relays in [1, 4] {
        let db = TestDb::<Postgres>::new().await;
        let ledger = shop::open(&db).await;
        shop::fill(&db, &ledger, events(500)).await;
        let relay = |_| {
            let (ledger, sink) = (Ledger::new(shop::pool(&db)), sinks::Counting::default());
            Relay::builder(ledger)
                .route("*", sink)
                .lease(Duration::from_secs(1))
        };
        let relays = (0..relays).map(relay).collect::<Vec<_>>();
        let count = relays.len();
        let speed = drained(&ledger, relays, events(500)).await;
        rows.push(vec![count.to_string(), format!("{speed:.0}")]);
    }
    table(
        "Relays on one outbox, to memory, batch 500 (all of them, the server and this program share the machine)",
        &["relays", "events/s"],
        &rows,
    );
}

/// Events per second, from when the relays hold their leases.
async fn drained(
    ledger: &Ledger<Postgres>,
    relays: Vec<RelayBuilder<Postgres>>,
    events: u64,
) -> f64 {
    let mut tasks = tokio::task::JoinSet::new();
    let begun = Instant::now();
    for relay in relays {
        let relay = relay.build().expect("a relay");
        tasks.spawn(relay.run(std::future::pending()));
    }
    loop {
        // Cheap while it is full: the first row is enough to know.
        if ledger
            .outbox()
            .peek(1)
            .await
            .expect("the outbox")
            .is_empty()
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let speed = events as f64 / begun.elapsed().as_secs_f64();
    assert_eq!(ledger.outbox().pending().await.expect("a count"), 0);
    speed
}
