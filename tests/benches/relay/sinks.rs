//! What is measured: a sink, and the client of the same broker for the bare loop.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use effectively::Envelope;
use effectively::sink::{Delivery, EventRef, Sink, Unavailable};

use super::limit::Row;

/// What a bare loop does with a batch: all of it is confirmed when this returns.
pub trait Produce: Send + 'static {
    fn produce(&mut self, rows: Vec<Row>) -> impl Future<Output = ()> + Send;
}

/// Where events go.
pub trait Broker: Sized {
    type Sink: Sink;
    type Producer: Produce;

    /// # Errors
    /// Why it is left out.
    async fn open() -> Result<Self, String>;

    /// Makes a topic that is empty and of its own.
    async fn create(&self, topic: &str);

    /// Takes the room back that its events need.
    async fn remove(&self, topic: &str);

    fn sink(&self, topic: &str) -> Self::Sink;

    fn producer(&self, topic: &str) -> Self::Producer;
}

/// # Errors
/// That it is not set.
#[cfg(any(feature = "kafka", feature = "nats", feature = "redis"))]
pub fn address(variable: &str) -> Result<String, String> {
    let address = std::env::var(variable).unwrap_or_default();
    if address.is_empty() {
        return Err(format!("{variable} is not set"));
    }
    Ok(address)
}

/// A name that nobody else uses.
pub fn unique() -> String {
    format!("bench-{}", sqlx::types::Uuid::new_v4().simple())
}

/// Takes everything and keeps nothing: the outbox's upper bound.
#[derive(Debug, Clone, Copy)]
pub struct Memory;

impl Sink for Memory {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        vec![Delivery::Published; batch.len()]
    }

    fn keeps_order(&self) -> bool {
        true
    }
}

impl Produce for Memory {
    async fn produce(&mut self, rows: Vec<Row>) {
        drop(rows);
    }
}

impl Broker for Memory {
    type Sink = Self;
    type Producer = Self;

    async fn open() -> Result<Self, String> {
        Ok(Self)
    }

    async fn create(&self, _: &str) {}

    async fn remove(&self, _: &str) {}

    fn sink(&self, _: &str) -> Self {
        Self
    }

    fn producer(&self, _: &str) -> Self {
        Self
    }
}

/// Shows each event to a function when the sink has answered that it is published.
pub struct Watched<S, F> {
    sink: S,
    published: F,
}

impl<S: Sink, F: Fn(&Envelope) + Send + Sync + 'static> Watched<S, F> {
    pub fn new(sink: S, published: F) -> Self {
        Self { sink, published }
    }
}

impl<S: Sink, F: Fn(&Envelope) + Send + Sync + 'static> Sink for Watched<S, F> {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let answers = self.sink.publish(batch).await;
        for (event, answer) in batch.iter().zip(&answers) {
            if answer.is_published() {
                (self.published)(event);
            }
        }
        answers
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

impl<S: fmt::Debug, F> fmt::Debug for Watched<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sink.fmt(f)
    }
}

/// How many events were published.
#[derive(Debug, Clone, Default)]
pub struct Count(Arc<AtomicU64>);

impl Count {
    /// The sink, counting.
    pub fn of<S: Sink>(&self, sink: S) -> impl Sink + use<S> {
        let count = self.clone();
        Watched::new(sink, move |_| {
            count.0.fetch_add(1, Ordering::Relaxed);
        })
    }

    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
