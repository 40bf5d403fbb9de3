//! Kafka transactions with the relay's progress in them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::ClientConfig;
use tokio::task::spawn_blocking;

use crate::{
    broker::kafka::{
        Misconfigured,
        client::{Client, Topics},
        config::{bound, prefer, settle},
        progress::Progress,
        seat::Seat,
    },
    model::Envelope,
    sink::{Delivery, EventRef, Sink, Unavailable},
};

/// Publishes in Kafka transactions, together with a record of what was published. A consumer with
/// `isolation.level=read_committed` sees each event once, even if the relay dies between publishing and writing that down.
///
/// ```
/// use effectively::sink::kafka::Transactional;
///
/// let mut config = rdkafka::ClientConfig::new();
/// config.set("bootstrap.servers", "localhost:9092");
/// let sink = Transactional::new(config, "orders-relay")?;
/// # Ok::<(), effectively::sink::kafka::Misconfigured>(())
/// ```
///
/// # How
/// Each virtual partition of the relay, 0 to 63, has a producer of its own, with the transactional id `<prefix>-<partition>`; it is
/// made when the partition is assigned or first published to. A batch is one transaction for each of its partitions, which also
/// commits an offset of the group `<prefix>-<partition>`, whose metadata text lists the events; a long list is spread over the
/// groups `<prefix>-<partition>.1` and following. A relay that takes a partition over
/// shuts out the former one first, and then reads which events it need not publish again.
///
/// # What it needs
/// * The topic [`progress_topic`](Self::progress_topic) with one partition. Nothing is ever written to it: offsets need a topic.
/// * One prefix for all relays of one outbox, and for no other: two outboxes with one prefix shut each other out. It may stay
///   when the database is made anew, restored from a backup or emptied: the record names the database and the ids of the events, and
///   what it does not name is published.
/// * `offsets.retention.minutes` of the brokers, 7 days by default, longer than a relay can be down. After that the record is
///   gone, and the last batch before the crash may be published twice.
/// * Rights: write on the transactional ids `<prefix>-*`, read on the groups `<prefix>-*` and on the topic of the records.
/// * A producer has some threads and connections: count with four threads for each partition that a relay holds.
///
/// # When the outcome is unclear
/// The producer is made again under the same id, which ends its transaction one way or the other, and the record tells which.
/// If another relay has taken the partition over, everything of it is unavailable until it is assigned again. A transaction
/// that outlives `transaction.timeout.ms`, say in a process that was stopped, looks the same and ends the same.
///
/// # Settings
/// As for [`Kafka`](super::Kafka). `transaction.timeout.ms` is 10000 if it is not set; it bounds each step of a transaction, and
/// consumers wait so long for the transaction of a relay that died.
pub struct Transactional {
    /// The application's.
    given: ClientConfig,
    config: ClientConfig,
    prefix: String,
    progress_topic: String,
    timeout: Duration,
    topics: Arc<Topics>,
    seats: Mutex<HashMap<u16, Arc<Mutex<Seat>>>>,
}

impl Transactional {
    /// The prefix is the name of the outbox towards Kafka: it must stay the same over restarts. It begins the name of a topic, so
    /// it is 1 to 240 of the characters that Kafka allows there: ASCII letters, digits, `.`, `_` and `-`.
    ///
    /// # Errors
    /// [`Misconfigured`]: a setting is unknown, or contradicts what the sink promises; the prefix begins no name of a topic.
    pub fn new(given: ClientConfig, prefix: impl Into<String>) -> Result<Self, Misconfigured> {
        let prefix = prefix.into();
        if !begins_topic(&prefix) {
            return Err(Misconfigured(
                "the prefix must be 1 to 240 ASCII letters, digits, `.`, `_` or `-`".into(),
            ));
        }
        let mut config = given.clone();
        settle(&mut config)?;
        if config.get("transactional.id").is_some() {
            return Err(Misconfigured(
                "`transactional.id` comes from the prefix".into(),
            ));
        }
        prefer(&mut config, &["transaction.timeout.ms"], "10000");
        let timeout = bound(&config, &["transaction.timeout.ms"], 10_000)?;
        // Only to learn whether it can be made.
        drop(Client::new(
            config.clone().set("transactional.id", &prefix),
        )?);
        Ok(Self {
            given,
            config,
            progress_topic: format!("{prefix}-progress"),
            prefix,
            timeout,
            topics: Arc::default(),
            seats: Mutex::default(),
        })
    }

    /// The topic that the progress records are attached to; `<prefix>-progress` if this is not called. All relays of one outbox
    /// must agree on it.
    #[must_use]
    pub fn progress_topic(mut self, topic: impl Into<String>) -> Self {
        self.progress_topic = topic.into();
        self
    }

    fn seat(&self, partition: u16) -> Arc<Mutex<Seat>> {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let seat = || {
            let id = format!("{}-{partition}", self.prefix);
            let mut config = self.config.clone();
            config.set("transactional.id", &id);
            let progress = Progress {
                config: self.given.clone(),
                group: id,
                topic: self.progress_topic.clone(),
                groups: Vec::new(),
            };
            Arc::new(Mutex::new(Seat {
                config,
                progress,
                topics: self.topics.clone(),
                timeout: self.timeout,
                client: None,
                published: Default::default(),
                closed: None,
            }))
        };
        seats.entry(partition).or_insert_with(seat).clone()
    }

    /// Runs to its end even if the caller is gone: what became of a transaction is kept for the next call.
    async fn at<T: Send + 'static>(
        &self,
        partition: u16,
        call: impl FnOnce(&mut Seat) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let seat = self.seat(partition);
        let call =
            spawn_blocking(move || call(&mut seat.lock().unwrap_or_else(PoisonError::into_inner)));
        call.await
            .map_err(|_| Unavailable::new("the producer's task failed"))
    }
}

/// Kafka takes names of up to 249 characters (`Topic.java`, `LEGAL_CHARS` and `MAX_NAME_LENGTH`); `-progress` is 9 of them.
fn begins_topic(prefix: &str) -> bool {
    (1..=240).contains(&prefix.len())
        && prefix
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

impl Sink for Transactional {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let mut parts: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (place, event) in batch.iter().enumerate() {
            parts.entry(event.partition).or_default().push(place);
        }
        let mut calls = Vec::with_capacity(parts.len());
        for (partition, places) in parts {
            let events: Vec<_> = places.iter().map(|place| batch[*place].clone()).collect();
            let seat = self.seat(partition);
            let publish = move || {
                seat.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .publish(&events)
            };
            calls.push((places, spawn_blocking(publish)));
        }
        let mut answers = vec![Delivery::Held; batch.len()];
        for (places, call) in calls {
            let failed =
                |_| vec![Delivery::unavailable("the producer's task failed"); places.len()];
            for (place, answer) in places.iter().zip(call.await.unwrap_or_else(failed)) {
                answers[*place] = answer;
            }
        }
        answers
    }

    fn keeps_order(&self) -> bool {
        true
    }

    async fn assigned(&self, partition: u16) -> Result<Vec<i64>, Unavailable> {
        let open = |seat: &mut Seat| {
            seat.open()?;
            seat.closed = None;
            Ok(Vec::new())
        };
        self.at(partition, open).await?
    }

    async fn published(&self, partition: u16) -> Result<Vec<EventRef>, Unavailable> {
        self.at(partition, |seat| seat.published.iter().copied().collect())
            .await
    }

    async fn revoked(&self, partition: u16) {
        // Whatever comes late must not shut out the next holder.
        _ = self
            .at(partition, |seat| seat.close("the partition was given up"))
            .await;
    }
}

impl fmt::Debug for Transactional {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transactional")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_begins_no_name_of_a_topic_is_refused_at_once() {
        let sink = |prefix: &str| Transactional::new(ClientConfig::new(), prefix);
        for wrong in [
            "",
            "orders relay",
            "bestellungen-ü",
            "a/b",
            &"x".repeat(241),
        ] {
            assert!(sink(wrong).is_err(), "{wrong:?}");
        }
        for right in ["orders-relay", "Shop_1.orders", &"x".repeat(240)] {
            assert!(sink(right).is_ok(), "{right:?}");
        }
    }
}
