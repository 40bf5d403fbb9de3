//! Relays that die between publishing and settling, with Kafka's transactions: a consumer that reads committed sees each event
//! once, and of each key in its order.

// A test that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used)]

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use effectively::fault::{self, Action};
use effectively::sink::kafka::Transactional;
use effectively::sink::{Delivery, EventRef, Sink, Unavailable};
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
    dies: bool,
}

#[test]
fn two_hundred_deaths_show_no_event_twice_to_who_reads_committed() {
    run(kill_and_count);
}

#[test]
fn a_stopped_relay_makes_no_second_copy_visible_when_it_goes_on() {
    run(stop_and_go_on);
}

fn run(test: impl AsyncFnOnce(&str, TestDb<Postgres>)) {
    let brokers = std::env::var(VARIABLE).ok().filter(|it| !it.is_empty());
    let Some(brokers) = brokers.filter(|_| effectively_tests::available::<Postgres>()) else {
        assert!(
            std::env::var("EFFECTIVELY_TEST_SERVERS").is_err(),
            "{VARIABLE} is not set"
        );
        let this_thread = std::thread::current();
        let test = this_thread.name().unwrap_or("a test");
        // Straight to the handle: `eprintln!` would be captured.
        let _ = writeln!(
            std::io::stderr().lock(),
            "SKIPPED {test}: {VARIABLE} is not set; ./tests/run starts a server"
        );
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let db = TestDb::<Postgres>::new().await;
        match Worker::input::<Job>() {
            Some(job) => job.run(&brokers, &db).await,
            None => test(&brokers, db).await,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
}

impl Job {
    async fn run(self, brokers: &str, db: &TestDb<Postgres>) {
        if self.dies {
            fault::arm(Some((fault::AFTER_PUBLISH, Action::Kill)));
        }
        let ledger = Ledger::new(db.pool().clone());
        let _ = relay(brokers, &self.topic, ledger, !self.dies)
            .run(std::future::pending())
            .await;
    }
}

/// Publishes to the test's own topic, whatever an event's is called.
struct Own {
    topic: String,
    sink: Arc<Transactional>,
    /// Tells the parent before it publishes, and waits for a word.
    asks: bool,
}

impl Sink for Own {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let mut batch = batch.to_vec();
        for event in &mut batch {
            event.topic.clone_from(&self.topic);
        }
        if !self.asks {
            return self.sink.publish(&batch).await;
        }
        // In a task of its own: it goes on although the relay has given the batch up.
        let sink = Arc::clone(&self.sink);
        let publishing = tokio::spawn(async move {
            Worker::say("publishes");
            Worker::listen().await;
            let answers = sink.publish(&batch).await;
            let published = answers.iter().any(Delivery::is_published);
            Worker::say(format_args!("published: {published}"));
            answers
        });
        publishing.await.expect("no panic")
    }

    fn keeps_order(&self) -> bool {
        self.sink.keeps_order()
    }

    async fn assigned(&self, partition: u16) -> Result<Vec<i64>, Unavailable> {
        self.sink.assigned(partition).await
    }

    async fn published(&self, partition: u16) -> Result<Vec<EventRef>, Unavailable> {
        self.sink.published(partition).await
    }

    async fn revoked(&self, partition: u16) {
        self.sink.revoked(partition).await;
    }
}

/// A relay that publishes in transactions. `prefix` names the transactions, and with `-progress` behind it a topic.
fn relay(brokers: &str, prefix: &str, ledger: Ledger<Postgres>, asks: bool) -> Relay<Postgres> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let sink = Own {
        topic: prefix.to_owned(),
        sink: Arc::new(Transactional::new(config, prefix).expect("a sink")),
        asks,
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
                dies: true,
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
    let last =
        tokio::spawn(relay(brokers, &prefix, ledger.clone(), false).run(std::future::pending()));
    eventually(SOON * 2, async || waiting(&ledger).await == 0).await;
    last.abort();

    assert_once_in_order(brokers, &prefix, emitted);
    Worker::say(format_args!(
        "{deaths} deaths, {emitted} events, 0 lost, 0 double"
    ));
}

async fn stop_and_go_on(brokers: &str, db: TestDb<Postgres>) {
    let prefix = format!("stopped-{}", sqlx::types::Uuid::new_v4());
    create_topics(brokers, &prefix).await;
    let ledger = Ledger::new(db.pool().clone());
    ledger.migrate().await.expect("the toolkit's tables");
    emit(&ledger, 0).await;
    let mut stopped = db.worker(&Job {
        topic: prefix.clone(),
        dies: false,
    });
    // It holds the leases and the transactional ids, and has read the events.
    stopped.expect("publishes").await;
    stopped.pause();
    let other =
        tokio::spawn(relay(brokers, &prefix, ledger.clone(), false).run(std::future::pending()));
    eventually(SOON, async || waiting(&ledger).await == 0).await;
    stopped.resume();
    stopped.tell("go on");
    stopped.expect("published: false").await;
    other.abort();
    assert_once_in_order(brokers, &prefix, 100);
}

/// What a consumer sees that reads committed: every event once, of each key in its order.
fn assert_once_in_order(brokers: &str, topic: &str, emitted: u64) {
    let mut ids = HashSet::new();
    let mut of_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (id, event) in read_committed(brokers, topic, emitted) {
        assert!(ids.insert(id), "{event:?} is visible twice");
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
}

async fn waiting(ledger: &Ledger<Postgres>) -> u64 {
    ledger.outbox().pending().await.expect("a count")
}

async fn emit_until(ledger: Ledger<Postgres>, enough: Arc<AtomicBool>) -> u64 {
    let mut emitted = 0;
    while !enough.load(Ordering::SeqCst) {
        emit(&ledger, emitted).await;
        emitted += 100;
        // There always is something, and never more than the last relay can publish on a slow machine.
        while waiting(&ledger).await > 10_000 && !enough.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    emitted
}

/// A hundred events in one call.
async fn emit(ledger: &Ledger<Postgres>, first: u64) {
    let event = |number| Numbered {
        key: format!("key {}", number % KEYS),
        number: number / KEYS,
    };
    let emission = Emit::new(()).events((first..first + 100).map(event));
    let id = sqlx::types::Uuid::new_v4();
    let call = ledger.call(Key::new("emit", &[&id]).expect("a key"));
    let done: Result<_, Failure<Error>> = call
        .run_with_events(async |_: &mut PgConnection| Ok(emission))
        .await;
    done.expect("a committed call");
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
