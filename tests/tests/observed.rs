//! What is seen from outside: metrics, spans, and the trace context on its way from the handler to the sink. And what must not be
//! seen: keys, payloads, tenants.
//!
//! A binary of its own: recorder and subscriber are the process's.

// A test that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use effectively::sink::{Delivery, Memory};
use effectively::{Emit, Event, Key, Ledger, Relay, Route};
use effectively_tests::{LogCapture, TestDb, eventually};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use serde::Serialize;
use sqlx::{Sqlite, SqliteConnection};

const SOON: Duration = Duration::from_secs(20);
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// In the key, in the partition key and in the payload.
const SECRET: &str = "sesame-7719";

#[derive(Serialize, Event)]
#[event(topic = "orders", name = "order.placed.v1", key = "{customer}")]
struct OrderPlaced {
    customer: String,
    number: u64,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

async fn order(ledger: &Ledger<Sqlite>, number: u64, fails: bool) -> bool {
    let key = Key::new("orders.place", &[&SECRET, &number]).expect("a key");
    let call = ledger
        .call(key)
        .run_with_events(async |_: &mut SqliteConnection| {
            let event = OrderPlaced {
                customer: SECRET.to_owned(),
                number,
            };
            if fails {
                return Err(sqlx::Error::RowNotFound);
            }
            Ok(Emit::new(()).event(event))
        });
    call.await.is_ok()
}

/// Counters by name, with their labels as text.
fn counted(snapshotter: &Snapshotter) -> BTreeMap<String, u64> {
    let mut counted = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let (name, labels) = key.key().clone().into_parts();
        let labels: BTreeSet<String> = labels
            .iter()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let labels: Vec<_> = labels.into_iter().collect();
        let value = match value {
            DebugValue::Counter(count) => count,
            DebugValue::Gauge(value) => value.0 as u64,
            DebugValue::Histogram(values) => values.len() as u64,
        };
        counted.insert(format!("{}{{{}}}", name.as_str(), labels.join(",")), value);
    }
    counted
}

#[test]
fn calls_and_the_relay_are_counted_and_traced_and_no_secret_is_seen() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder
        .install()
        .expect("no other recorder in this process");
    let log = LogCapture::global();
    runtime().block_on(async {
        let db = TestDb::<Sqlite>::new().await;
        let ledger = Ledger::builder(db.pool().clone())
            .trace_context(|| Some(TRACE.to_owned()))
            .build()
            .expect("a ledger");
        ledger.migrate().await.expect("the toolkit's tables");
        for number in 0..5 {
            assert!(order(&ledger, number, false).await);
        }
        assert!(order(&ledger, 0, false).await, "a replay");
        assert!(!order(&ledger, 9, true).await, "a failure");

        let sink = Memory::new().judged_by(|event| match event.outbox_id {
            2 => Some(Delivery::refused_for_good("too large")),
            4 if event.attempts == 0 => Some(Delivery::rejected("not yet")),
            _ => None,
        });
        let moment = Duration::from_millis(10);
        let route = Route::to(sink.clone()).backoff(moment, moment);
        let relay = Relay::builder(ledger.clone()).route("orders", route);
        let relay = relay.poll(moment).build().expect("a relay");
        let running = tokio::spawn(relay.run(std::future::pending()));
        eventually(SOON, async || sink.len() == 4).await;
        running.abort();

        let published = sink.published();
        for event in &published {
            let context = event.attributes().find(|(name, _)| *name == "traceparent");
            assert_eq!(context.expect("a trace context").1, TRACE);
        }
    });

    let counted = counted(&snapshotter);
    let expected = [
        (
            "effectively_calls_total{result=executed,scope=orders.place}",
            5,
        ),
        (
            "effectively_calls_total{result=replayed,scope=orders.place}",
            1,
        ),
        (
            "effectively_calls_total{result=released,scope=orders.place}",
            1,
        ),
        ("effectively_relay_published_total{route=orders}", 4),
        ("effectively_relay_rejected_total{route=orders}", 2),
        ("effectively_relay_dead_letters_total{}", 1),
        ("effectively_relay_partitions{}", 64),
        ("effectively_relay_lag_seconds{route=orders}", 4),
    ];
    for (name, count) in expected {
        assert_eq!(counted.get(name), Some(&count), "{name} of {counted:#?}");
    }
    assert!(!format!("{counted:?}").contains(SECRET), "{counted:#?}");

    let log = log.text();
    for span in [
        "step=\"claim\"",
        "step=\"complete\"",
        "publish{route=orders",
    ] {
        assert!(log.contains(span), "{span} is not in the log");
    }
    for target in ["effectively::claim", "effectively::relay"] {
        assert!(log.contains(target), "{target} is not in the log");
    }
    let ours: Vec<_> = log
        .lines()
        .filter(|line| line.contains("effectively::"))
        .filter(|line| line.contains(SECRET))
        .collect();
    assert!(ours.is_empty(), "{ours:#?}");
}
