//! The idempotent producer.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rdkafka::{ClientConfig, error::KafkaError};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use crate::{
    broker::kafka::{
        Misconfigured,
        client::{Client, Topics},
        config::{bound, require, settle},
        reason, refusal,
        round::Round,
        slot::{Slot, Unfinished},
    },
    model::{Envelope, Lane},
    sink::{Delivery, Sink},
};

/// Publishes with the idempotent producer. At least once: what is published again, say after a crash of the relay, is in the
/// topic twice, with the same `ce_id`.
///
/// ```
/// use effectively::sink::kafka::Kafka;
///
/// let mut config = rdkafka::ClientConfig::new();
/// config.set("bootstrap.servers", "localhost:9092");
/// let sink = Kafka::new(config)?;
/// # Ok::<(), effectively::sink::kafka::Misconfigured>(())
/// ```
///
/// # Order
/// Of one key, no event is published unless the earlier ones of its batch were. The idempotent producer alone does not give
/// that: after a record that the broker refuses, librdkafka sends the later ones. So the producer stops for good at the first
/// refusal (`enable.gapless.guarantee`) and is made again, and the refused events are sent once more, each in a request of its
/// own, so that only the one that is to blame is rejected.
///
/// That stops what waits in the producer. What is on its way already is stopped by the broker's check of sequence numbers, which
/// begins with the first record that a producer has stored in a Kafka partition. So of each key the first event of a batch goes
/// ahead alone, and the rest follows in one go: a batch takes one round trip more when keys repeat in it.
///
/// # Settings
/// `enable.idempotence` and `acks` are set, `enable.gapless.guarantee` too; other values of them are refused. Where the
/// application has set nothing, `linger.ms` is 1, `partitioner` is `murmur2_random` as in the Java client, and
/// `message.timeout.ms`, which bounds a whole `publish`, is 30000.
pub struct Kafka {
    fast: Slot,
    /// For topics that have refused something: one event of each key at a time, each in a request of its own.
    careful: Slot,
    suspects: Mutex<HashSet<String>>,
    topics: Arc<Topics>,
    patience: Duration,
}

impl Kafka {
    /// Makes the producer. It connects by itself, later.
    ///
    /// # Errors
    /// [`Misconfigured`]: a setting is unknown, or contradicts what the sink promises.
    pub fn new(mut config: ClientConfig) -> Result<Self, Misconfigured> {
        settle(&mut config)?;
        if config.get("transactional.id").is_some() {
            return Err(Misconfigured(
                "`transactional.id` is for the sink `Transactional`".into(),
            ));
        }
        let timeouts = ["message.timeout.ms", "delivery.timeout.ms"];
        let patience = bound(&config, &timeouts, 30_000)?;
        // The sink keeps the time itself: librdkafka would drop one record and go on with the later ones of its key.
        config.remove(timeouts[1]).set(timeouts[0], "0");
        let mut careful = config.clone();
        careful.remove("enable.gapless.guarantee");
        careful.set("batch.num.messages", "1");
        require(&mut config, &["enable.gapless.guarantee"], &["true"])?;
        let sink = Self {
            fast: Slot::new(config),
            careful: Slot::new(careful),
            suspects: Mutex::default(),
            topics: Arc::default(),
            patience,
        };
        sink.fast.client()?;
        Ok(sink)
    }

    fn suspects(&self) -> MutexGuard<'_, HashSet<String>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the events whose topics are not there.
    async fn look_up_topics(&self, round: &mut Round<'_>) -> Result<(), KafkaError> {
        let batch = round.batch;
        let mut new: Vec<_> = batch.iter().map(|event| &event.topic).collect();
        new.sort_unstable();
        new.dedup();
        new.retain(|topic| !self.topics.knows(topic));
        for topic in new {
            let (client, topics, name) = (self.fast.client()?, self.topics.clone(), topic.clone());
            let bound = self.patience;
            let found = spawn_blocking(move || topics.look_up(&client, &name, bound)).await;
            let found = found
                .unwrap_or_else(|_| Err(Delivery::unavailable("the lookup of a topic failed")));
            if let Err(answer) = found {
                for place in (0..batch.len()).filter(|place| batch[*place].topic == *topic) {
                    round.answer(place, answer.clone());
                }
            }
        }
        Ok(())
    }

    /// Sends a step and waits for each answer.
    async fn send<'a>(
        &self,
        step: Vec<(usize, bool)>,
        clients: [Option<Arc<Client>>; 2],
        round: &mut Round<'a>,
        warm: &mut HashMap<Lane, &'a str>,
        end: Instant,
    ) {
        let slots = [&self.fast, &self.careful];
        let mut unfinished = Unfinished { slots, clients };
        let mut sent = Vec::with_capacity(step.len());
        for (place, careful) in step {
            let client = unfinished.clients[usize::from(careful)].clone();
            let Some(client) = client.filter(|_| round.is_open(place)) else {
                continue;
            };
            match client.enqueue(&round.batch[place]) {
                Ok(delivery) => sent.push((place, careful, client, delivery)),
                Err(error) => {
                    // It was not queued, so the producer does not mind.
                    let unavailable = || Delivery::unavailable(reason(&error));
                    round.answer(place, refusal(&error).unwrap_or_else(unavailable));
                }
            }
        }
        for (place, careful, client, delivery) in sent {
            let event = &round.batch[place];
            let slot = slots[usize::from(careful)];
            let error = match timeout_at(end, delivery).await {
                Ok(Ok(Ok(_))) => {
                    if !careful {
                        warm.insert(event.lane(), &event.topic);
                    }
                    round.answer(place, Delivery::Published);
                    continue;
                }
                Ok(Ok(Err((error, _)))) => error,
                Ok(Err(_)) => KafkaError::Canceled,
                Err(_) => {
                    slot.retire(&client);
                    round.answer(place, Delivery::unavailable("no answer in time"));
                    continue;
                }
            };
            // What waits behind a fatal error would wait for ever.
            if client.fatal().is_some() {
                slot.retire(&client);
            }
            match refusal(&error) {
                Some(answer) if careful => {
                    self.topics.forget(&event.topic);
                    round.answer(place, answer);
                }
                // No answer yet: others may have been in its request, and it is not known which of them is to blame.
                Some(_) => _ = self.suspects().insert(event.topic.clone()),
                None => round.answer(place, Delivery::unavailable(reason(&error))),
            }
        }
        unfinished.clients = [None, None];
    }

    async fn publish_in_steps(&self, round: &mut Round<'_>) -> Result<(), KafkaError> {
        let end = Instant::now() + self.patience;
        self.look_up_topics(round).await?;
        // The lanes of which the present producer has stored an event, and where.
        let mut warm = HashMap::new();
        let mut before: Option<Arc<Client>> = None;
        loop {
            let fast = self.fast.client()?;
            if before.is_some_and(|before| !Arc::ptr_eq(&before, &fast)) {
                warm.clear();
            }
            let step = round.step(&self.suspects(), &warm);
            if step.is_empty() {
                return Ok(());
            }
            let careful = step.iter().any(|(_, careful)| *careful);
            let careful = careful.then(|| self.careful.client()).transpose()?;
            before = Some(fast.clone());
            self.send(step, [Some(fast), careful], round, &mut warm, end)
                .await;
        }
    }
}

impl Sink for Kafka {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let mut round = Round::new(batch);
        if let Err(error) = self.publish_in_steps(&mut round).await {
            for place in round.open() {
                round.answer(place, Delivery::unavailable(reason(&error)));
            }
        }
        let answers = round.finish();
        // A topic that takes everything again is no longer suspect.
        let answered = batch.iter().zip(&answers);
        let failed = answered.filter(|(_, answer)| !answer.is_published());
        let failed: HashSet<_> = failed.map(|(event, _)| &event.topic).collect();
        let mut suspects = self.suspects();
        for event in batch {
            if !suspects.is_empty() && !failed.contains(&event.topic) {
                suspects.remove(&event.topic);
            }
        }
        drop(suspects);
        answers
    }

    fn keeps_order(&self) -> bool {
        true
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka").finish_non_exhaustive()
    }
}
