//! Relays that die between publishing and settling, with Kafka's transactions: a consumer that reads committed sees each event
//! once, and of each key in its order.

// A test that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used)]

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use effectively::fault::{self, Action};
use effectively::sink::kafka::Transactional;
use effectively::sink::{Delivery, Sink, Unavailable};
use effectively::{Emit, Envelope, Error, Event, Failure, Key, Ledger, Relay};
use effectively_tests::{TestDb, Worker, eventually};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Postgres};

const VARIABLE: &str = "EFFECTIVELY_TEST_KAFKA";
const RELAYS: usize = 4;
const KEYS: u64 = 1000;
const KILLS: usize = 200;
const KAFKA_PARTITIONS: i32 = 4;
const SOON: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, Deserialize)]
struct Numbered {
    key: String,
    number: u64,
}

impl Event for Numbered {
    const TOPIC: &'static str = "numbers";
    const NAME: &'static str = "numbered.v1";

    fn partition_key(&self) -> Option<Cow<'_, str>> {
        Some(self.key.as_str().into())
    }
}

/// What a relay in a process of its own is told.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    topic: String,
}

#[test]
fn two_hundred_deaths_show_no_event_twice_to_who_reads_committed() {
    if !effectively_tests::available::<Postgres>() {
        return;
    }
    let Some(brokers) = std::env::var(VARIABLE).ok().filter(|it| !it.is_empty()) else {
        assert!(
            std::env::var("EFFECTIVELY_TEST_SERVERS").is_err(),
            "{VARIABLE} is not set"
        );
        // Straight to the handle: `eprintln!` would be captured.
        use std::io::Write;
        let _ = writeln!(
            std::io::stderr().lock(),
            "SKIPPED two_hundred_deaths_show_no_event_twice_to_who_reads_committed: {VARIABLE} is not set; ./tests/run starts a server"
        );
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let db = TestDb::<Postgres>::new().await;
        match Worker::input::<Job>() {
            Some(job) => job.run(&brokers, &db).await,
            None => kill_and_count(&brokers, db).await,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
}

impl Job {
    async fn run(self, brokers: &str, db: &TestDb<Postgres>) {
        fault::arm(Some((fault::AFTER_PUBLISH, Action::Kill)));
        let _ = relay(brokers, &self.topic, Ledger::new(db.pool().clone()))
            .run(std::future::pending())
            .await;
    }
}

/// Publishes to the test's own topic, whatever an event's is called.
struct Own {
    topic: String,
    sink: Transactional,
}

impl Sink for Own {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let mut batch = batch.to_vec();
        for event in &mut batch {
            event.topic.clone_from(&self.topic);
        }
        self.sink.publish(&batch).await
    }

    fn keeps_order(&self) -> bool {
        self.sink.keeps_order()
    }

    async fn assigned(&self, partition: u16) -> Result<Vec<i64>, Unavailable> {
        self.sink.assigned(partition).await
    }

    async fn revoked(&self, partition: u16) {
        self.sink.revoked(partition).await;
    }
}

/// A relay that publishes in transactions. `prefix` names the transactions, and with `-progress` behind it a topic.
fn relay(brokers: &str, prefix: &str, ledger: Ledger<Postgres>) -> Relay<Postgres> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let sink = Own {
        topic: prefix.to_owned(),
        sink: Transactional::new(config, prefix).expect("a sink"),
    };
    let relay = Relay::builder(ledger).route("numbers", sink).batch(100);
    relay
        .lease(Duration::from_secs(1))
        .build()
        .expect("a relay")
}

async fn kill_and_count(brokers: &str, db: TestDb<Postgres>) {
    let prefix = format!("deaths-{}", sqlx::types::Uuid::new_v4());
    create_topics(brokers, &prefix).await;
    let ledger = Ledger::new(db.pool().clone());
    ledger.migrate().await.expect("the toolkit's tables");

    let enough = Arc::new(AtomicBool::new(false));
    let emitting = tokio::spawn(emit_until(
        Ledger::new(db.pool_with(5, None)),
        Arc::clone(&enough),
    ));
    let mut deaths = 0;
    let mut relays: Vec<Worker> = Vec::new();
    while deaths < KILLS {
        while relays.len() < RELAYS {
            relays.push(db.worker(&Job {
                topic: prefix.clone(),
            }));
        }
        // Each of them dies at the end of its first batch.
        for mut relay in relays.drain(..) {
            let status = relay.exit().await;
            assert!(!status.success(), "a relay ended by itself");
            deaths += 1;
        }
    }
    enough.store(true, Ordering::SeqCst);
    let emitted = emitting.await.expect("all emitted");
    let last = tokio::spawn(relay(brokers, &prefix, ledger.clone()).run(std::future::pending()));
    eventually(SOON * 2, async || {
        ledger.outbox().pending().await.expect("a count") == 0
    })
    .await;
    last.abort();

    let received = read_committed(brokers, &prefix, emitted);
    let mut ids = HashSet::new();
    let mut of_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (id, event) in received {
        assert!(
            ids.insert(id),
            "{event:?} is visible twice after {deaths} deaths"
        );
        of_key.entry(event.key).or_default().push(event.number);
    }
    assert_eq!(ids.len() as u64, emitted, "events are missing or too many");
    for (key, numbers) in of_key {
        assert_eq!(
            numbers,
            (0..numbers.len() as u64).collect::<Vec<_>>(),
            "{key}"
        );
    }
    println!("{deaths} deaths, {emitted} events, 0 lost, 0 double");
}

async fn emit_until(ledger: Ledger<Postgres>, enough: Arc<AtomicBool>) -> u64 {
    let mut emitted = 0;
    while !enough.load(Ordering::SeqCst) {
        let event = |number| Numbered {
            key: format!("key {}", number % KEYS),
            number: number / KEYS,
        };
        let emission = Emit::new(()).events((emitted..emitted + 100).map(event));
        let id = sqlx::types::Uuid::new_v4();
        let call = ledger.call(Key::new("emit", &[&id]).expect("a key"));
        let done: Result<_, Failure<Error>> = call
            .run_with_events(async |_: &mut PgConnection| Ok(emission))
            .await;
        done.expect("a committed call");
        emitted += 100;
        // As much as is published meanwhile, so that there always is something.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    emitted
}

async fn create_topics(brokers: &str, prefix: &str) {
    let mut config = ClientConfig::new();
    let admin: AdminClient<_> = config
        .set("bootstrap.servers", brokers)
        .create()
        .expect("a client");
    let progress = format!("{prefix}-progress");
    let topics = [
        NewTopic::new(prefix, KAFKA_PARTITIONS, TopicReplication::Fixed(1)),
        NewTopic::new(&progress, 1, TopicReplication::Fixed(1)),
    ];
    let created = admin.create_topics(&topics, &AdminOptions::new()).await;
    for topic in created.expect("topics") {
        topic.expect("a topic");
    }
}

/// Id and event of all that is visible, partition by partition in its order, to its end.
fn read_committed(brokers: &str, topic: &str, at_least: u64) -> Vec<(String, Numbered)> {
    let mut config = ClientConfig::new();
    let consumer: BaseConsumer = config
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("reads {topic}"))
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..KAFKA_PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&all).expect("its partitions");
    let (mut received, mut ended) = (Vec::new(), HashSet::new());
    let end = std::time::Instant::now() + SOON;
    while ended.len() < KAFKA_PARTITIONS as usize || (received.len() as u64) < at_least {
        assert!(
            std::time::Instant::now() < end,
            "{} of {at_least}",
            received.len()
        );
        match consumer.poll(Duration::from_millis(500)) {
            Some(Ok(message)) => {
                let headers = message.headers().expect("headers");
                let id = headers.iter().find(|header| header.key == "ce_id");
                let id = id.and_then(|id| id.value).expect("an id");
                let id = String::from_utf8(id.to_vec()).expect("text");
                let event = serde_json::from_slice(message.payload().expect("data"));
                received.push((id, event.expect("a numbered event")));
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    received
}
