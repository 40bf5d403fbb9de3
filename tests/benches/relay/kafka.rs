//! Kafka: topics of 8 partitions, `acks=all`, with the idempotent producer and in transactions.

use std::time::{Duration, Instant};

use effectively::sink::kafka::{Kafka, Transactional};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use tokio::task::block_in_place;

use super::limit::Row;
use super::sinks::{Broker, Produce, address, unique};

const PARTITIONS: i32 = 8;
const BOUND: Duration = Duration::from_secs(30);

struct Cluster {
    config: ClientConfig,
    admin: AdminClient<DefaultClientContext>,
}

impl Cluster {
    fn open() -> Result<Self, String> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", address("EFFECTIVELY_TEST_KAFKA")?);
        let admin = config.create().expect("a client");
        Ok(Self { config, admin })
    }

    /// Until each partition has a leader: no round begins with a wait for that.
    async fn create(&self, topic: &str, partitions: i32) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let made = self.admin.create_topics([&new], &AdminOptions::new()).await;
        made.expect("an answer")[0].as_ref().expect("a topic");
        let end = Instant::now() + BOUND;
        while block_in_place(|| self.leaders(topic)) < partitions {
            assert!(Instant::now() < end, "no leaders after {BOUND:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn leaders(&self, topic: &str) -> i32 {
        let found = self.admin.inner().fetch_metadata(Some(topic), BOUND);
        let found = found.expect("an answer");
        let parts = found.topics().iter().flat_map(|topic| topic.partitions());
        let led = parts.filter(|part| part.leader() >= 0).count();
        i32::try_from(led).expect("a small number")
    }

    async fn remove(&self, topics: &[&str]) {
        let removed = self.admin.delete_topics(topics, &AdminOptions::new()).await;
        removed.expect("an answer");
    }

    /// As the sinks set it.
    fn producer(&self, more: &[(&str, &str)]) -> FutureProducer {
        let mut config = self.config.clone();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "1")
            .set("partitioner", "murmur2_random");
        for (name, value) in more {
            config.set(*name, *value);
        }
        config.create().expect("a producer")
    }
}

/// Sends a batch without waiting, then waits for each answer.
async fn send_all(producer: &FutureProducer, topic: &str, rows: &[Row]) {
    let mut sent = Vec::with_capacity(rows.len());
    for (_, _, id, _, key, data) in rows {
        let id = id.to_string();
        let headers = OwnedHeaders::new().insert(Header {
            key: "ce_id",
            value: Some(&id),
        });
        let mut record = FutureRecord::to(topic).payload(data).headers(headers);
        record.key = key.as_deref();
        let queued = producer.send_result(record);
        sent.push(queued.map_err(|(error, _)| error).expect("room"));
    }
    for answer in sent {
        let answer = answer.await.expect("a producer");
        answer.map_err(|(error, _)| error).expect("a stored record");
    }
}

pub struct Idempotent(Cluster);

impl Broker for Idempotent {
    type Sink = Kafka;
    type Producer = Plain;

    async fn open() -> Result<Self, String> {
        Cluster::open().map(Self)
    }

    async fn create(&self, topic: &str) {
        self.0.create(topic, PARTITIONS).await;
    }

    async fn remove(&self, topic: &str) {
        self.0.remove(&[topic]).await;
    }

    fn sink(&self, _: &str) -> Kafka {
        Kafka::new(self.0.config.clone()).expect("a sink")
    }

    fn producer(&self, topic: &str) -> Plain {
        Plain {
            producer: self.0.producer(&[]),
            topic: topic.to_owned(),
        }
    }
}

pub struct Plain {
    producer: FutureProducer,
    topic: String,
}

impl Produce for Plain {
    async fn produce(&mut self, rows: Vec<Row>) {
        send_all(&self.producer, &self.topic, &rows).await;
    }
}

pub struct InTransactions(Cluster);

/// What the sink's records are attached to.
fn progress(topic: &str) -> String {
    format!("{topic}-progress")
}

impl Broker for InTransactions {
    type Sink = Transactional;
    type Producer = OneTransaction;

    async fn open() -> Result<Self, String> {
        Cluster::open().map(Self)
    }

    async fn create(&self, topic: &str) {
        self.0.create(topic, PARTITIONS).await;
        self.0.create(&progress(topic), 1).await;
    }

    async fn remove(&self, topic: &str) {
        self.0.remove(&[topic, &progress(topic)]).await;
    }

    fn sink(&self, topic: &str) -> Transactional {
        let sink = Transactional::new(self.0.config.clone(), unique()).expect("a sink");
        sink.progress_topic(progress(topic))
    }

    fn producer(&self, topic: &str) -> OneTransaction {
        let producer = self.0.producer(&[("transactional.id", &unique())]);
        block_in_place(|| producer.init_transactions(BOUND)).expect("a transactional id");
        OneTransaction {
            producer,
            topic: topic.to_owned(),
        }
    }
}

/// One transaction for a batch.
pub struct OneTransaction {
    producer: FutureProducer,
    topic: String,
}

impl Produce for OneTransaction {
    async fn produce(&mut self, rows: Vec<Row>) {
        self.producer.begin_transaction().expect("a transaction");
        send_all(&self.producer, &self.topic, &rows).await;
        block_in_place(|| self.producer.commit_transaction(BOUND)).expect("a commit");
    }
}
