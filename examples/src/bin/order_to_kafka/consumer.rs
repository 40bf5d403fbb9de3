//! The other end of the topic. What comes twice is recognised by its `ce_id`.

use std::{
    collections::{BTreeMap, HashSet},
    error::Error,
    fmt,
    time::Duration,
};

use effectively::Event;
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use tokio::time::timeout;

use crate::OrderPlaced;

/// What came, in its order.
#[derive(Default)]
pub struct Seen {
    ids: HashSet<String>,
    /// The numbers of each customer's orders.
    numbers: BTreeMap<String, Vec<u32>>,
}

/// Reads until so many different events of this source have come, and prints each.
pub async fn read(
    mut config: ClientConfig,
    source: &str,
    events: usize,
) -> Result<Seen, Box<dyn Error>> {
    config.set("group.id", source); // a group of its own, which begins at the oldest record
    config.set("auto.offset.reset", "earliest");
    let consumer: StreamConsumer = config.create()?;
    consumer.subscribe(&[OrderPlaced::TOPIC])?;
    let mut seen = Seen::default();
    while seen.ids.len() < events {
        let record = timeout(Duration::from_secs(60), consumer.recv()).await??;
        if header(&record, "ce_source") == source {
            seen.record(&record)?;
        }
    }
    Ok(seen)
}

impl Seen {
    /// Each customer's orders are 1, 2, 3 and so on, and came like that.
    pub fn in_order(&self) -> bool {
        let mut customers = self.numbers.values();
        customers.all(|numbers| numbers.iter().copied().eq((1..).take(numbers.len())))
    }

    fn record(&mut self, record: &BorrowedMessage<'_>) -> Result<(), Box<dyn Error>> {
        let order: OrderPlaced = serde_json::from_slice(record.payload().unwrap_or_default())?;
        let key = String::from_utf8_lossy(record.key().unwrap_or_default());
        let (id, name) = (header(record, "ce_id"), header(record, "ce_type"));
        println!(
            "partition {}  key {key}  {name} of order {}  id {id}  traceparent {}",
            record.partition(),
            order.number,
            header(record, "ce_traceparent"),
        );
        // A consumer with a database claims the id there, in the transaction of its effects: `#[idempotent(key = "{id}")]`.
        if self.ids.insert(id.to_owned()) {
            let numbers = self.numbers.entry(key.into_owned()).or_default();
            numbers.push(order.number);
        }
        Ok(())
    }
}

fn header<'a>(record: &'a BorrowedMessage<'_>, name: &str) -> &'a str {
    let mut headers = record.headers().into_iter().flat_map(Headers::iter);
    let value = headers.find(|header| header.key == name);
    let value = value.and_then(|header| std::str::from_utf8(header.value?).ok());
    value.unwrap_or_default()
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = if self.in_order() {
            "in order"
        } else {
            "out of order"
        };
        write!(f, "{} events received {order}", self.ids.len())
    }
}
