//! The read side: a relay moves committed events from the outbox to sinks.
//!
//! ```text
//! leases (keeper.rs) ─→ partitions that are ours (partitions.rs)
//!                           │ idle
//! commit, NOTIFY, time ─→ read what is due (pump.rs) ─→ publish by route, in the order of each key (publish.rs) ─→ settle (batch.rs)
//! ```
//!
//! A partition is the unit: of one partition a single relay has the lease, and of that relay a single batch is on its way. So
//! order needs no memory and no lock: what is not settled is read again from the beginning.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, task::JoinSet, time::timeout};

use self::{
    partitions::Partitions, port::Port, pump::Pump, retries::Retries, routes::Routes,
    suspects::Suspects,
};
use crate::{engine::Ledger, error::Error, error::ErrorKind, store::Dialect};

mod batch;
mod breaker;
mod builder;
mod call;
mod control;
mod group;
mod keeper;
mod pace;
mod partitions;
mod port;
mod publish;
mod pump;
mod retries;
mod route;
mod routes;
mod suspects;

pub use self::{
    builder::RelayBuilder,
    control::Control,
    route::{Order, Route},
};

/// Moves committed events from the outbox to sinks: at least once, of each partition key in the order of the outbox.
///
/// ```no_run
/// # #[cfg(feature = "postgres")]
/// # async fn example(ledger: effectively::Ledger<sqlx::Postgres>, shutdown: impl Future<Output = ()>) -> Result<(), effectively::Error> {
/// use effectively::{Relay, sink::Stdout};
///
/// let relay = Relay::builder(ledger).route("*", Stdout::new()).build()?;
/// relay.run(shutdown).await
/// # }
/// ```
///
/// Any number of relays share the work, in the service or beside it: each holds leases on some of 64 virtual partitions. One
/// that dies loses them when they end, see [`lease`](RelayBuilder::lease).
///
/// Relays with the same routes are a group and share the work. Relays without a common topic do not touch each other, so several
/// services may share a database, each with a relay of its own. Relays that have some routes in common, as two versions of a
/// service have while one replaces the other, publish one group after the other: those that come later wait until the others have
/// ended. Relays that have different routes for one topic, say `orders` here and `*` there, are refused: an event of that topic
/// would have two.
///
/// Dropping the future of [`run`](Self::run) ends the relay at once, as a crash does: what was published and not settled is
/// published again, with the same ids. Ending it through `shutdown` settles first and gives the leases up.
#[derive(Debug)]
pub struct Relay<DB: Dialect> {
    shared: Arc<Shared<DB>>,
}

/// What the parts of a running relay have in common.
#[derive(Debug)]
struct Shared<DB: Dialect> {
    port: Port<DB>,
    routes: Routes,
    partitions: Partitions,
    retries: Retries,
    suspects: Suspects,
    settings: Settings,
    /// Something changed that the pump has to look at.
    changed: Arc<Notify>,
}

#[derive(Debug, Clone)]
struct Settings {
    batch: usize,
    concurrency: usize,
    lease: Duration,
    poll: Duration,
    linger: Duration,
    publish_timeout: Duration,
    grace: Duration,
    max_crashes: u16,
    keep_published: Option<Duration>,
    source: Arc<str>,
}

impl<DB: Dialect> Shared<DB> {
    /// A sixteenth of a batch, so that four batches of different partitions can be on their way.
    fn least_per_partition(&self) -> usize {
        (self.settings.batch / 16).max(1)
    }
}

impl<DB: Dialect> Relay<DB> {
    /// A relay for this ledger's outbox.
    pub fn builder(ledger: Ledger<DB>) -> RelayBuilder<DB> {
        RelayBuilder::new(ledger)
    }

    /// Pauses and resumes topics while it runs.
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.shared) as _)
    }

    /// Runs until `shutdown` is ready, then ends in order: reads nothing more, lets what is being published come to its end
    /// for at most the [`grace`](RelayBuilder::grace), and gives its leases up.
    ///
    /// A database or a sink that is down does not end it: it waits for them.
    ///
    /// # Errors
    /// At its beginning: [`ErrorKind::TablesMissing`], [`ErrorKind::SchemaVersion`], [`ErrorKind::RightsMissing`]; [`ErrorKind::Settings`] when the
    /// connection works in no schema. Later:
    /// [`ErrorKind::RelayStopped`] when a part
    /// of the relay has panicked: what is being published comes to its end as after `shutdown`, and the relay can be built and
    /// run again. [`ErrorKind::RoutesOverlap`] when a relay with other routes for the same topics is alive and stays alive.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        match self.shared.port.check().await {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::TablesMissing
                        | ErrorKind::SchemaVersion { .. }
                        | ErrorKind::RightsMissing { .. }
                        | ErrorKind::Settings(_)
                ) =>
            {
                return Err(error);
            }
            // The keeper goes on asking.
            Err(_) | Ok(()) => {}
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper::keep(Arc::clone(&self.shared)));
        let ledger = self.shared.port.ledger().clone();
        if ledger.notifies() {
            let changed = Arc::clone(&self.shared.changed);
            tasks.spawn(async move {
                DB::listen(ledger.pool(), || changed.notify_one()).await;
                ErrorKind::RelayStopped.into()
            });
        }
        let mut pump = Pump::new(Arc::clone(&self.shared));
        let ended = tokio::select! {
            biased;
            // Without its keeper a relay would go on and publish nothing.
            Some(ended) = tasks.join_next() => {
                Err(ended.unwrap_or_else(|_| ErrorKind::RelayStopped.into()))
            }
            () = pump.run(shutdown) => Ok(()),
        };
        // Leases are kept until the end: what is on its way may still be settled.
        let drained = timeout(self.shared.settings.grace, pump.drain()).await;
        if drained.is_err() {
            tracing::warn!(target: "effectively::relay", "what is still being published will be published again");
        }
        drop(pump);
        // What this end has cut short has killed nobody.
        suspects::acquit_all(&self.shared).await;
        drop(tasks);
        keeper::revoke(&self.shared, &self.shared.partitions.take_all()).await;
        metrics::gauge!("effectively_relay_partitions").set(0.0);
        // If it fails the leases end by themselves.
        if let Err(error) = self.shared.port.resign().await {
            tracing::warn!(target: "effectively::relay", %error, "the leases could not be given up");
        }
        ended
    }
}
