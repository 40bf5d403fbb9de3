//! Events per second out of a full outbox, by sink and batch, beside the bare loop.

use std::time::{Duration, Instant};

use effectively::{Ledger, Relay, RelayBuilder};
use effectively_tests::TestDb;
use sqlx::Postgres;

use super::args::Args;
use super::report::{Summary, median, table};
use super::running::{self, Running};
use super::sinks::{Broker, Count, Memory, unique};
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

pub async fn measure(args: &Args, summary: &mut Summary) {
    if args.on("memory") {
        of_sink::<Memory>("memory", &BATCHES, summary).await;
    }
    if args.on("kafka") {
        #[cfg(feature = "kafka")]
        {
            of_sink::<super::kafka::Idempotent>("kafka", &BATCHES, summary).await;
            of_sink::<super::kafka::InTransactions>("kafka-transactional", &[500], summary).await;
        }
        #[cfg(not(feature = "kafka"))]
        summary.leave_out("kafka", "built without the feature `kafka`");
    }
    if args.on("nats") {
        #[cfg(feature = "nats")]
        of_sink::<super::nats::JetStream>("nats", &BATCHES, summary).await;
        #[cfg(not(feature = "nats"))]
        summary.leave_out("nats", "built without the feature `nats`");
    }
    if args.on("redis") {
        #[cfg(feature = "redis")]
        of_sink::<super::redis::Streams>("redis", &BATCHES, summary).await;
        #[cfg(not(feature = "redis"))]
        summary.leave_out("redis", "built without the feature `redis`");
    }
}

async fn of_sink<B: Broker>(name: &str, batches: &[usize], summary: &mut Summary) {
    let broker = match B::open().await {
        Ok(broker) => broker,
        Err(why) => return summary.leave_out(name, &why),
    };
    let mut rows = Vec::new();
    for &batch in batches {
        let (mut relayed, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            limits.push(bare(batch, &broker).await);
            relayed.push(one_relay(batch, &broker).await);
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
        summary.lines.push(format!(
            "drain: sink={name} batch={batch} events_per_s={relayed:.0} limit={limit:.0}"
        ));
    }
    table(
        &format!("Draining to {name}: events of 200 B, 1,000 keys, PostgreSQL, median of {ROUNDS}"),
        &["batch", "relay/s", "bare loop/s", "ratio"],
        &rows,
    );
}

async fn bare(batch: usize, broker: &impl Broker) -> f64 {
    let db = TestDb::<Postgres>::new().await;
    let ledger = shop::open(&db).await;
    shop::fill(&db, &ledger, events(batch)).await;
    let topic = unique();
    broker.create(&topic).await;
    let batch_rows = i64::try_from(batch).expect("small");
    let producer = broker.producer(&topic);
    let speed = limit::drain(ledger.pool(), producer, batch_rows, events(batch)).await;
    broker.remove(&topic).await;
    speed
}

async fn one_relay(batch: usize, broker: &impl Broker) -> f64 {
    let db = TestDb::<Postgres>::new().await;
    let ledger = shop::open(&db).await;
    let topic = unique();
    broker.create(&topic).await;
    shop::send_to(&db, &topic).await;
    shop::fill(&db, &ledger, events(batch)).await;
    let count = Count::default();
    let relay = Relay::builder(ledger.clone())
        .route("*", count.of(broker.sink(&topic)))
        .batch(batch);
    let speed = drained(&ledger, vec![relay], &count, events(batch)).await;
    broker.remove(&topic).await;
    speed
}

/// One relay, and four with a pool each, on the same outbox.
pub async fn one_against_four(summary: &mut Summary) {
    let mut rows = Vec::new();
    let mut speeds = Vec::new();
    for relays in [1, 4] {
        let db = TestDb::<Postgres>::new().await;
        let ledger = shop::open(&db).await;
        shop::fill(&db, &ledger, events(500)).await;
        let count = Count::default();
        let relay = |_| {
            let ledger = Ledger::new(shop::pool(&db));
            // Short, so that they share soon.
            Relay::builder(ledger)
                .route("*", count.of(Memory))
                .lease(Duration::from_secs(1))
        };
        let builders = (0..relays).map(relay).collect::<Vec<_>>();
        let speed = drained(&ledger, builders, &count, events(500)).await;
        rows.push(vec![relays.to_string(), format!("{speed:.0}")]);
        speeds.push(format!("events_per_s_{relays}={speed:.0}"));
    }
    table(
        "Relays on one outbox, to memory, batch 500 (all of them, the server and this program share the machine)",
        &["relays", "events/s"],
        &rows,
    );
    summary.lines.push(format!("relays: {}", speeds.join(" ")));
}

/// Events per second, from when the relays share the partitions, without the first twentieth: then all connections are open.
async fn drained(
    ledger: &Ledger<Postgres>,
    relays: Vec<RelayBuilder<Postgres>>,
    published: &Count,
    events: u64,
) -> f64 {
    let relays: Vec<_> = relays.into_iter().map(Running::paused).collect();
    running::spread(ledger, relays.len()).await;
    for relay in &relays {
        relay.resume();
    }
    running::until(async || published.now() >= events / 20).await;
    let (begun, before) = (Instant::now(), published.now());
    // Asked only at the end: a look at the outbox reads all of it.
    running::until(async || published.now() >= events).await;
    running::until(async || {
        let first = ledger.outbox().peek(1).await;
        first.expect("the outbox").is_empty()
    })
    .await;
    let speed = (events - before) as f64 / begun.elapsed().as_secs_f64();
    assert_eq!(ledger.outbox().pending().await.expect("a count"), 0);
    for relay in relays {
        relay.stop().await;
    }
    speed
}
