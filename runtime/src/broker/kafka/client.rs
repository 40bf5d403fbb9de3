//! The producer, and the topics that it may send to.

use std::{
    collections::HashSet,
    ops::Deref,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer, PurgeConfig},
};

use super::{reason, refusal, refusal_by};
use crate::model::{Envelope, delivery::Delivery, envelope::CONTENT_TYPE};

/// A producer. Dropping it joins its threads, so that is left to another thread: a worker of tokio must not wait.
pub(crate) struct Client(FutureProducer);

impl Client {
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, KafkaError> {
        config.create().map(Self)
    }

    /// Forgets everything that is queued or on its way: nothing of it is sent any more.
    pub(crate) fn forget_all(&self) {
        self.0.purge(PurgeConfig::default().queue().inflight());
    }

    pub(crate) fn fatal(&self) -> Option<Code> {
        self.0.client().fatal_error().map(|(code, _)| code)
    }

    pub(crate) fn enqueue(&self, event: &Envelope) -> Result<DeliveryFuture, KafkaError> {
        let mut headers = OwnedHeaders::new_with_capacity(8 + event.headers.len());
        let mut add = |key: &str, value: &str| {
            let of_before = std::mem::replace(&mut headers, OwnedHeaders::new_with_capacity(0));
            headers = of_before.insert(Header {
                key,
                value: Some(value),
            });
        };
        for (name, value) in event.attributes() {
            add(&format!("ce_{name}"), &value);
        }
        add("content-type", CONTENT_TYPE);
        for (name, value) in &event.headers {
            // rdkafka panics on it.
            if name.contains('\0') {
                return Err(KafkaError::MessageProduction(Code::InvalidArgument));
            }
            add(name, value);
        }
        let mut record = FutureRecord::to(&event.topic)
            .payload(event.data.as_slice())
            .headers(headers);
        record.key = event.partition_key.as_deref();
        self.0.send_result(record).map_err(|(error, _)| error)
    }
}

impl Deref for Client {
    type Target = FutureProducer;

    fn deref(&self) -> &FutureProducer {
        &self.0
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let last = self.0.clone();
        // Without a thread the caller's one does it.
        _ = thread::Builder::new().spawn(move || drop(last));
    }
}

/// The topics that are known to be there.
#[derive(Default)]
pub(crate) struct Topics(Mutex<HashSet<String>>);

impl Topics {
    /// How long a new topic may take to be known everywhere.
    const PATIENCE: Duration = Duration::from_secs(1);

    pub(crate) fn knows(&self, topic: &str) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(topic)
    }

    pub(crate) fn forget(&self, topic: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(topic);
    }

    /// Looks the topic up, unless it is known. Blocks.
    ///
    /// A producer would keep the events of a missing topic until they time out.
    pub(crate) fn look_up(
        &self,
        client: &Client,
        topic: &str,
        bound: Duration,
    ) -> Result<(), Delivery> {
        let end = Instant::now() + Self::PATIENCE;
        while !self.knows(topic) {
            let found = client.client().fetch_metadata(Some(topic), bound);
            let found = found.map_err(|error| {
                refusal(&error).unwrap_or_else(|| Delivery::unavailable(reason(&error)))
            })?;
            match found
                .topics()
                .first()
                .and_then(|topic| topic.error())
                .map(Code::from)
            {
                None | Some(Code::LeaderNotAvailable) => {
                    self.0
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(topic.to_owned());
                }
                Some(Code::UnknownTopicOrPartition | Code::UnknownTopic)
                    if Instant::now() < end =>
                {
                    thread::sleep(Duration::from_millis(100));
                }
                Some(code) => {
                    return Err(
                        refusal_by(code).unwrap_or_else(|| Delivery::unavailable(code.to_string()))
                    );
                }
            }
        }
        Ok(())
    }
}
