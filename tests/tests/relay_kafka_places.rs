//! Kafka's transactions and a database that gives the places of its outbox out again: under the old prefix, with the old progress
//! record, no event may be taken for one that was published before.

// A test that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used)]

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use effectively::sink::kafka::Transactional;
use effectively::sink::{Delivery, EventRef, Sink, Unavailable};
use effectively::{Dialect, Emit, Envelope, Error, Event, Failure, Key, Ledger, Relay};
use effectively_tests::{TestDb, TestServer, eventually, on_every_database};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use sqlx::types::Uuid;
use tokio::task::spawn_blocking;

const VARIABLE: &str = "EFFECTIVELY_TEST_KAFKA";
const SOON: Duration = Duration::from_secs(60);

on_every_database!(
    a_new_database_under_an_old_prefix_loses_nothing,
    an_emptied_outbox_loses_nothing,
    a_restored_backup_loses_nothing,
    a_copy_of_the_database_loses_nothing,
);

/// The events of all tests go to topics of their own.
#[derive(Debug, Serialize, Deserialize)]
struct Numbered {
    number: u64,
}

impl Event for Numbered {
    const TOPIC: &'static str = "numbers";
    const NAME: &'static str = "numbered.v1";

    fn partition_key(&self) -> Option<Cow<'_, str>> {
        Some("one".into())
    }
}

/// A prefix, and the topic that all numbers go to.
struct Kafka {
    config: ClientConfig,
    prefix: String,
}

impl Kafka {
    async fn open() -> Option<Self> {
        let brokers = std::env::var(VARIABLE).ok().filter(|it| !it.is_empty());
        let Some(brokers) = brokers else {
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
            return None;
        };
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        let admin: AdminClient<_> = config.create().expect("a client");
        let prefix = format!("places-{}", Uuid::new_v4());
        let progress = format!("{prefix}-progress");
        let topics = [prefix.as_str(), &progress];
        let topics = topics.map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1)));
        let created = admin.create_topics(&topics, &AdminOptions::new()).await;
        for topic in created.expect("topics") {
            topic.expect("a topic");
        }
        Some(Self { config, prefix })
    }

    /// Emits these numbers, publishes all that is in the outbox, and lets the relay end.
    async fn publish<DB: Db>(&self, ledger: &Ledger<DB>, numbers: std::ops::Range<u64>) {
        emit(ledger, numbers).await;
        let sink = Transactional::new(self.config.clone(), &self.prefix).expect("a sink");
        let sink = Renamed {
            sink,
            topic: self.prefix.clone(),
        };
        let relay = Relay::builder(ledger.clone()).route("numbers", sink);
        let relay = relay
            .lease(Duration::from_secs(1))
            .build()
            .expect("a relay");
        let running = tokio::spawn(relay.run(std::future::pending()));
        let pending = async || ledger.outbox().pending().await.expect("a count");
        eventually(SOON, async || pending().await == 0).await;
        let letters = ledger.outbox().dead_letters(0, 10).await.expect("a list");
        assert!(letters.is_empty(), "{letters:?}");
        // As a crash ends it: the record of the last transaction stays.
        running.abort();
        let _ = running.await;
    }

    /// Fails unless a consumer that reads committed sees each of these numbers.
    async fn assert_seen(&self, numbers: impl IntoIterator<Item = u64>) {
        let (config, topic) = (self.config.clone(), self.prefix.clone());
        let seen = spawn_blocking(move || read_committed(config, &topic)).await;
        let (seen, expected) = (seen.expect("no panic"), BTreeSet::from_iter(numbers));
        let missing: Vec<_> = expected.difference(&seen).collect();
        assert!(
            missing.is_empty(),
            "{missing:?} are neither in the outbox nor in Kafka"
        );
    }
}

trait Db: TestServer + Dialect {}
impl<DB: TestServer + Dialect> Db for DB {}

async fn migrated<DB: Db>(db: &TestDb<DB>) -> Ledger<DB> {
    let ledger = Ledger::new(db.pool().clone());
    ledger.migrate().await.expect("the toolkit's tables");
    ledger
}

async fn a_new_database_under_an_old_prefix_loses_nothing<DB: Db>(old: TestDb<DB>) {
    let Some(kafka) = Kafka::open().await else {
        return;
    };
    kafka.publish(&migrated(&old).await, 0..5).await;
    let new = TestDb::<DB>::new().await;
    kafka.publish(&migrated(&new).await, 100..105).await;
    kafka.assert_seen((0..5).chain(100..105)).await;
}

async fn an_emptied_outbox_loses_nothing<DB: Db>(db: TestDb<DB>) {
    let Some(kafka) = Kafka::open().await else {
        return;
    };
    let ledger = migrated(&db).await;
    kafka.publish(&ledger, 0..5).await;
    places_begin_again(&db).await;
    kafka.publish(&ledger, 100..105).await;
    // With all tables, as a test harness does.
    places_begin_again(&db).await;
    db.execute("delete from effectively_identity").await;
    kafka.publish(&migrated(&db).await, 200..205).await;
    kafka
        .assert_seen((0..5).chain(100..105).chain(200..205))
        .await;
}

/// What was in the outbox at the time of the backup is in it again, and later places are given to other events.
async fn a_restored_backup_loses_nothing<DB: Db>(db: TestDb<DB>) {
    let Some(kafka) = Kafka::open().await else {
        return;
    };
    let ledger = migrated(&db).await;
    emit(&ledger, 0..2).await;
    db.execute("create table backup as select * from effectively_outbox")
        .await;
    kafka.publish(&ledger, 2..5).await;
    places_begin_again(&db).await;
    emit(&ledger, 100..102).await;
    restore(&db).await;
    kafka.publish(&ledger, 102..105).await;
    kafka.assert_seen((0..5).chain(102..105)).await;
}

/// A copy has the identity of its original, and gives the same places to other events.
async fn a_copy_of_the_database_loses_nothing<DB: Db>(original: TestDb<DB>) {
    let Some(kafka) = Kafka::open().await else {
        return;
    };
    let ledger = migrated(&original).await;
    let id = match DB::NAME {
        "PostgreSQL" => "id::text",
        _ => "hex(id)",
    };
    let read = format!("select {id} from effectively_identity");
    let id = original.texts(&read).await.concat();
    kafka.publish(&ledger, 0..5).await;
    let copy = TestDb::<DB>::new().await;
    let of_copy = migrated(&copy).await;
    let same = match DB::NAME {
        "PostgreSQL" => format!("update effectively_identity set id = '{id}'"),
        _ => format!("update effectively_identity set id = X'{id}'"),
    };
    assert_eq!(copy.execute(&same).await, 1);
    kafka.publish(&of_copy, 100..105).await;
    kafka.assert_seen((0..5).chain(100..105)).await;
}

/// The next event has the first place again.
async fn places_begin_again<DB: Db>(db: &TestDb<DB>) {
    let statements: &[&str] = match DB::NAME {
        "PostgreSQL" => &["truncate effectively_outbox restart identity"],
        "MySQL" => &["truncate table effectively_outbox"],
        _ => &[
            "delete from effectively_outbox",
            "delete from sqlite_sequence where name = 'effectively_outbox'",
        ],
    };
    for statement in statements {
        db.execute(statement).await;
    }
}

/// Puts the rows of the backup in the place of the first ones.
async fn restore<DB: Db>(db: &TestDb<DB>) {
    let overriding = match DB::NAME {
        "PostgreSQL" => "overriding system value",
        _ => "",
    };
    db.execute("delete from effectively_outbox").await;
    let columns = "id, event_id, topic, type, partition_key, partition_no, data, headers, traceparent, created_at, available_at";
    db.execute(&format!(
        "insert into effectively_outbox ({columns}) {overriding} select {columns} from backup"
    ))
    .await;
}

async fn emit<DB: Db>(ledger: &Ledger<DB>, numbers: std::ops::Range<u64>) {
    let emission = Emit::new(()).events(numbers.map(|number| Numbered { number }));
    let call = ledger.call(Key::new("emit", &[&Uuid::new_v4()]).expect("a key"));
    let done: Result<_, Failure<Error>> = call
        .run_with_events(async |_: &mut DB::Connection| Ok(emission))
        .await;
    done.expect("a committed call");
}

/// From the beginning to the end.
fn read_committed(mut config: ClientConfig, topic: &str) -> BTreeSet<u64> {
    config
        .set("group.id", format!("reads {topic}"))
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(topic, 0, Offset::Beginning)
        .expect("an offset");
    consumer.assign(&all).expect("its partition");
    let mut seen = BTreeSet::new();
    let end = std::time::Instant::now() + SOON;
    loop {
        assert!(std::time::Instant::now() < end, "{seen:?}");
        match consumer.poll(Duration::from_millis(500)) {
            Some(Ok(message)) => {
                let event: Numbered =
                    serde_json::from_slice(message.payload().expect("data")).expect("a number");
                seen.insert(event.number);
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return seen,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
}

/// Publishes to the test's own topic, whatever an event's is called.
struct Renamed {
    sink: Transactional,
    topic: String,
}

impl Sink for Renamed {
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

    async fn published(&self, partition: u16) -> Result<Vec<EventRef>, Unavailable> {
        self.sink.published(partition).await
    }

    async fn revoked(&self, partition: u16) {
        self.sink.revoked(partition).await;
    }
}
