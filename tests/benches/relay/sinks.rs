//! The sinks that are measured, each with the client of the same broker for the bare loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use effectively::sink::{Delivery, Sink};
use effectively::{Envelope, Route};

use super::limit::Row;

/// What a bare loop does with a batch.
pub trait Produce {
    async fn produce(&mut self, rows: Vec<Row>);
}

/// Takes everything and keeps nothing but a count: an outbox's upper bound.
#[derive(Debug, Clone, Default)]
pub struct Counting(Arc<AtomicU64>);

impl Sink for Counting {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        self.0.fetch_add(batch.len() as u64, Ordering::Relaxed);
        vec![Delivery::Published; batch.len()]
    }

    fn keeps_order(&self) -> bool {
        true
    }
}

impl Produce for Counting {
    async fn produce(&mut self, rows: Vec<Row>) {
        self.0.fetch_add(rows.len() as u64, Ordering::Relaxed);
    }
}

/// The route of a sink, and its bare loop; `Err`: why it is left out.
pub async fn memory() -> Result<(Route, Counting), String> {
    let sink = Counting::default();
    Ok((Route::to(sink.clone()), sink))
}
