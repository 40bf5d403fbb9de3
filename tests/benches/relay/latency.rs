//! How late an event is: from its call's return to the sink's answer, at 1,000 calls a second, and at 10.
//!
//! A busy outbox is looked at all the time, whoever wakes the relay. What waking is worth shows with few events.

use std::sync::Arc;
use std::time::Duration;

use effectively::{Ledger, Relay};
use effectively_tests::TestDb;
use sqlx::Postgres;

use super::args::Args;
use super::limit;
use super::load::{self, Times};
use super::report::{Summary, percentile, table};
use super::running::Running;
use super::shop;
use super::sinks::{Broker, Memory, unique};

const LENGTH: Duration = Duration::from_secs(10);
const BUSY: u64 = 1_000;
const QUIET: u64 = 10;
/// Of the bare loop, as the relay has it.
const BATCH: i64 = 500;

/// What publishes, and where it is, seen from the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In their process, with their ledger: each commit wakes it.
    Here,
    /// As in another process, by a ledger and a pool of its own: it looks by itself.
    Polling,
    /// The same, and woken by NOTIFY.
    Notified,
    /// No relay: the bare loop, which looks each millisecond.
    Bare,
}

pub async fn measure(args: &Args, summary: &mut Summary) {
    if args.on("memory") {
        of_sink::<Memory>("memory", BUSY, summary).await;
        of_sink::<Memory>("memory", QUIET, summary).await;
    }
    if args.on("kafka") {
        #[cfg(feature = "kafka")]
        of_sink::<super::kafka::Idempotent>("kafka", BUSY, summary).await;
        #[cfg(not(feature = "kafka"))]
        summary.leave_out("kafka", "built without the feature `kafka`");
    }
}

async fn of_sink<B: Broker>(name: &str, offered: u64, summary: &mut Summary) {
    let broker = match B::open().await {
        Ok(broker) => broker,
        Err(why) => return summary.leave_out(name, &why),
    };
    let mut rows = Vec::new();
    for place in [Place::Here, Place::Polling, Place::Notified, Place::Bare] {
        let (rate, times) = at(place, offered, &broker).await;
        let lags = times.lags(Duration::ZERO, Duration::MAX / 2);
        let of = |part| percentile(&lags, part);
        let (p50, p99, longest) = (of(0.5), of(0.99), of(1.0));
        let (title, word) = match place {
            Place::Here => ("same process", ""),
            Place::Polling => ("another process, polling", "relay=polling "),
            Place::Notified => ("another process, notified", "relay=notified "),
            Place::Bare => ("(bare loop)", "relay=none "),
        };
        rows.push(vec![
            title.to_owned(),
            format!("{rate:.0}"),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
            format!("{longest:.2}"),
            times.missing().to_string(),
        ]);
        summary.lines.push(format!(
            "latency: sink={name} {word}rate={offered} p50_ms={p50:.2} p99_ms={p99:.2}"
        ));
    }
    table(
        &format!(
            "From the return of the call to the answer of the sink ({name}), {offered} calls/s for {LENGTH:?}, open loop, \
             PostgreSQL"
        ),
        &[
            "relay in", "calls/s", "p50 ms", "p99 ms", "max ms", "missing",
        ],
        &rows,
    );
}

async fn at(place: Place, rate: u64, broker: &impl Broker) -> (f64, Arc<Times>) {
    let db = TestDb::<Postgres>::new().await;
    let topic = unique();
    broker.create(&topic).await;
    shop::open(&db).await;
    shop::send_to(&db, &topic).await;
    let ledger = || {
        let builder = Ledger::builder(shop::pool(&db));
        builder
            .notify_relays(place == Place::Notified)
            .build()
            .expect("a ledger")
    };
    let calls = ledger();
    let times = Times::new(rate, LENGTH);
    let rate = if place == Place::Bare {
        let producer = times.of_producer(broker.producer(&topic));
        let pool = shop::pool(&db);
        let bare = tokio::spawn(async move {
            limit::follow(&pool, producer, BATCH).await;
        });
        let rate = load::run(&calls, &times).await;
        bare.abort();
        rate
    } else {
        let relays = if place == Place::Here {
            calls.clone()
        } else {
            ledger()
        };
        let sink = times.of(broker.sink(&topic));
        let relay = Running::start(Relay::builder(relays).route("*", sink));
        let rate = load::run(&calls, &times).await;
        relay.stop().await;
        rate
    };
    broker.remove(&topic).await;
    (rate, times)
}
