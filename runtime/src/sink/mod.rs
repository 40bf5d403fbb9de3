//! Sinks: where a [`Relay`](crate::Relay) publishes events. One file per broker, each behind the feature of its name.
//!
//! | sink | feature | how a repeat is recognised downstream |
//! |---|---|---|
//! | `kafka::Kafka` | `kafka` | header `ce_id`; the producer's own repeats are dropped by the broker |
//! | `kafka::Transactional` | `kafka` | consumers that read committed see each event once |
//! | `nats::Nats` | `nats` | `Nats-Msg-Id`, within the stream's duplicate window; after it the header `ce-id` |
//! | `rabbitmq::RabbitMq` | `rabbitmq` | `message_id`: by the consumer alone |
//! | `redis::RedisStreams` | `redis` | field `id`; with explicit ids the server refuses most repeats |
//! | `sqs::Sqs` | `sqs` | FIFO: SQS drops repeats for five minutes; `id` in the body |
//! | `mqtt::Mqtt` | `mqtt` | user property `id` |
//! | `webhook::Webhook` | `webhook` | `webhook-id`, signed, and `Idempotency-Key`: the event's id |
//! | [`Effect`] | none | [`EffectKey`], handed on by the function |
//! | [`Memory`], [`Stdout`] | none | for development and tests |
//!
//! # A sink of one's own
//!
//! A sink takes a batch and answers for each event in it. It answers [`Published`](Delivery::Published) only for what the
//! other side has said that it holds: the relay then deletes the event.
//!
//! ```
//! use std::{io::Write, path::PathBuf, sync::Mutex};
//!
//! use effectively::{Envelope, sink::{Delivery, Sink}};
//!
//! /// Appends each event to a file.
//! struct Journal(Mutex<std::fs::File>);
//!
//! impl Sink for Journal {
//!     async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
//!         let mut file = self.0.lock().unwrap();
//!         let mut lines = Vec::new();
//!         for event in batch {
//!             lines.extend_from_slice(&event.data);
//!             lines.push(b'\n');
//!         }
//!         // One answer for all: a batch that was not written to the end is published again.
//!         let answer = match file.write_all(&lines).and_then(|()| file.sync_data()) {
//!             Ok(()) => Delivery::Published,
//!             Err(error) => Delivery::unavailable(error.to_string()),
//!         };
//!         vec![answer; batch.len()]
//!     }
//!
//!     // It writes in the order of the batch, and all or nothing.
//!     fn keeps_order(&self) -> bool {
//!         true
//!     }
//! }
//! ```
//!
//! The suite that the sinks of this crate pass is `testing::sink`, feature `testing`.

use std::{fmt, future::Future};

use crate::model::Envelope;
pub use crate::model::{
    delivery::{Delivery, Rejected, Unavailable},
    envelope::{CONTENT_TYPE, EventRef},
};

mod effect;
#[cfg(feature = "kafka")]
pub mod kafka;
mod memory;
#[cfg(feature = "mqtt")]
pub mod mqtt;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqs")]
pub mod sqs;
mod stdout;
#[cfg(feature = "webhook")]
pub mod webhook;

pub use self::{
    effect::{Effect, EffectError, EffectKey},
    memory::Memory,
    stdout::Stdout,
};

/// Where events are published: a broker, an outside API, a function of the application.
///
/// # What a sink promises
/// * `publish` answers once for each event, in the order of the batch.
/// * [`Delivery::Published`] means that the other side has confirmed the event and can no longer lose it. What is unclear, say
///   after a lost connection, is [`Delivery::Unavailable`]: the relay publishes it again, with the same id.
/// * An event always goes out with its [`id`](Envelope::id), in the place where the other side looks for repeats.
/// * `publish` may be dropped at any await, and then what it was at is published again. It may be called by several tasks at
///   once, never for one partition at the same time.
/// * It bounds its own waiting; the relay's own bound on a whole batch is [`publish_timeout`](crate::RelayBuilder::publish_timeout).
pub trait Sink: Send + Sync + 'static {
    /// Publishes a batch and answers for each event, in the batch's order. The batch is never empty.
    fn publish(&self, batch: &[Envelope]) -> impl Future<Output = Vec<Delivery>> + Send;

    /// Whether this holds: of the events with one partition key in a batch, none is published unless all earlier ones of them
    /// were, whatever fails. A transaction, or one connection that stops at the first failure, can say so.
    ///
    /// If not, the relay hands over at most one event of each partition key at a time. Asked once, when the relay is built.
    fn keeps_order(&self) -> bool {
        false
    }

    /// The relay has taken over this virtual partition, perhaps from one that died or still believes to have it. A sink that
    /// can shut out the former holder does so here. Nothing of the partition is published before it returns.
    ///
    /// The relay deletes the events whose [`outbox_id`](Envelope::outbox_id)s it returns, whatever stands there. A database that
    /// was restored, or whose tables were emptied, gives the same `outbox_id`s to other events, which are lost then. So return
    /// none, and name events by their ids in [`published`](Self::published).
    ///
    /// Called again, without a [`revoked`](Self::revoked) between, when the relay does not know what became of a batch: the sink
    /// did not answer, or what it published could not be settled.
    ///
    /// The future is dropped after the relay's [`publish_timeout`](crate::RelayBuilder::publish_timeout). That, and a panic,
    /// count as [`Unavailable`].
    ///
    /// # Errors
    /// [`Unavailable`]: the relay tries again later.
    fn assigned(
        &self,
        partition: u16,
    ) -> impl Future<Output = Result<Vec<i64>, Unavailable>> + Send {
        let _ = partition;
        async { Ok(Vec::new()) }
    }

    /// Returns the events of this virtual partition that the sink knows to be published although they may still be in the outbox.
    /// Asked after each [`assigned`](Self::assigned). The relay deletes those of them that its outbox holds under the same ids,
    /// and publishes all others.
    ///
    /// # Errors
    /// [`Unavailable`]: the relay tries again later, and begins with [`assigned`](Self::assigned).
    fn published(
        &self,
        partition: u16,
    ) -> impl Future<Output = Result<Vec<EventRef>, Unavailable>> + Send {
        let _ = partition;
        async { Ok(Vec::new()) }
    }

    /// The relay has given this virtual partition up, or lost it: then some of it may still be on its way, and must not be
    /// published any more if the sink can help it.
    ///
    /// The future is dropped after a fifth of the relay's [`lease`](crate::RelayBuilder::lease): another relay may have the
    /// partition then. A panic is logged, and nothing else.
    fn revoked(&self, partition: u16) -> impl Future<Output = ()> + Send {
        let _ = partition;
        async {}
    }
}

impl fmt::Debug for dyn DynSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}

type Boxed<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a sink knows to be published of a partition that the relay has taken over.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) places: Vec<i64>,
    pub(crate) events: Vec<EventRef>,
}

/// A sink behind a pointer, so that a relay can have several kinds.
pub(crate) trait DynSink: Send + Sync {
    fn publish<'a>(&'a self, batch: &'a [Envelope]) -> Boxed<'a, Vec<Delivery>>;
    fn keeps_order(&self) -> bool;
    fn assigned(&self, partition: u16) -> Boxed<'_, Result<Known, Unavailable>>;
    fn revoked(&self, partition: u16) -> Boxed<'_, ()>;
}

impl<S: Sink> DynSink for S {
    fn publish<'a>(&'a self, batch: &'a [Envelope]) -> Boxed<'a, Vec<Delivery>> {
        Box::pin(Sink::publish(self, batch))
    }

    fn keeps_order(&self) -> bool {
        Sink::keeps_order(self)
    }

    fn assigned(&self, partition: u16) -> Boxed<'_, Result<Known, Unavailable>> {
        Box::pin(async move {
            Ok(Known {
                places: Sink::assigned(self, partition).await?,
                events: Sink::published(self, partition).await?,
            })
        })
    }

    fn revoked(&self, partition: u16) -> Boxed<'_, ()> {
        Box::pin(Sink::revoked(self, partition))
    }
}
