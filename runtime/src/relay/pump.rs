//! The loop of a relay: read what is due, hand it to a batch, read the next while that is being published.
//!
//! Nothing here remembers what was read before: what is not settled is still there, and a partition of which a batch is on its
//! way is not read. So an event whose transaction committed late, under an older id, is simply found.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    task::JoinSet,
    time::{sleep_until, timeout},
};
use uuid::Uuid;

use super::{
    Shared,
    batch::Batch,
    pace::{Found, Pace},
    partitions::Idle,
};
use crate::{
    error::Error,
    model::Envelope,
    store::{Dialect, Due, Lease},
};

/// How long a read that is under way may take when the relay ends.
const LAST_READ: Duration = Duration::from_secs(1);

pub(super) struct Pump<DB: Dialect> {
    shared: Arc<Shared<DB>>,
    batches: JoinSet<()>,
    /// A batch that must be the only one is on its way.
    alone: bool,
    pace: Pace,
    /// How much of one partition a read takes at most. Grows while few partitions have much.
    per_partition: usize,
    /// Where reading begins: moves on, so that all partitions get their turn.
    first: usize,
    /// How much a read takes at most. Shrinks when reads fail.
    reach: usize,
    /// When to look again for what has become due.
    promote_at: Instant,
}

impl<DB: Dialect> Pump<DB> {
    pub(super) fn new(shared: Arc<Shared<DB>>) -> Self {
        Self {
            batches: JoinSet::new(),
            alone: false,
            pace: Pace::new(shared.settings.linger, shared.settings.poll),
            per_partition: shared.least_per_partition(),
            first: 0,
            reach: usize::MAX,
            promote_at: Instant::now(),
            shared,
        }
    }

    /// Runs until the end is asked for.
    pub(super) async fn run(&mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut commits = self.shared.port.ledger().wakeups();
        loop {
            let free = !self.alone && self.batches.len() < self.shared.settings.concurrency;
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                Some(ended) = self.batches.join_next() => {
                    if ended.is_err() {
                        tracing::error!(target: "effectively::relay", "a batch panicked; its events are published again");
                    }
                    self.alone = false;
                    self.pace.hurry();
                }
                () = self.shared.changed.notified() => self.pace.hurry(),
                Ok(()) = commits.changed(), if !self.pace.is_hurried() => self.pace.hurry(),
                () = sleep_until(self.pace.next().into()), if free => {
                    let mut turn = pin!(self.turn());
                    tokio::select! {
                        biased;
                        () = &mut turn => {}
                        () = &mut shutdown => {
                            // A read that is dropped costs its connection, and one that is not answered must not hold up the end.
                            let _ = timeout(LAST_READ, turn).await;
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Waits for what is being published, and settles it.
    pub(super) async fn drain(&mut self) {
        while self.batches.join_next().await.is_some() {}
    }

    async fn turn(&mut self) {
        self.pace.began();
        match self.read().await {
            Ok(found) => {
                self.reach = self.reach.saturating_mul(2);
                self.pace.found(found);
            }
            Err(error) => {
                // Perhaps it was too much for the time that a statement has.
                self.reach = (self.room() / 2).max(1);
                tracing::warn!(target: "effectively::relay", %error, "the outbox cannot be read");
                self.pace.found(Found::Nothing);
            }
        }
        // A sink that was down is asked again when its time has come, whatever the pace.
        let wake = [
            self.shared.routes.reopens_at(),
            self.shared.retries.next(),
            Some(self.promote_at),
        ];
        if let Some(wake) = wake.into_iter().flatten().min() {
            self.pace.not_after(wake);
        }
    }

    async fn read(&mut self) -> Result<Found, Error> {
        let mut idle = self.shared.partitions.idle();
        if idle.is_empty() {
            return Ok(Found::Nothing);
        }
        self.promote(&idle).await?;
        self.look_for_parked(&mut idle).await?;
        // After deaths the smallest steps come first.
        let step = idle.iter().filter_map(|idle| idle.ramp).min();
        idle.retain(|idle| idle.ramp == step);
        if step == Some(1) && !self.batches.is_empty() {
            return Ok(Found::Nothing);
        }
        let count = idle.len();
        idle.rotate_left(self.first % count);
        let partitions: Vec<u16> = idle.iter().map(|idle| idle.lease.partition).collect();
        let parked = idle.iter().filter(|idle| idle.parked);
        let parked: Vec<u16> = parked.map(|idle| idle.lease.partition).collect();
        let per_partition = step.unwrap_or(self.per_partition);
        let events = self
            .shared
            .port
            .due(Due {
                partitions: &partitions,
                per_partition: i64::try_from(per_partition).unwrap_or(i64::MAX),
                limit: i64::try_from(self.room()).unwrap_or(i64::MAX),
                topics: &self.shared.routes.readable(),
                routes: self.shared.routes.patterns(),
                parked: &parked,
            })
            .await?;
        let found = self.judge(&events, per_partition, count);
        let database = self.shared.port.ledger().database().await?;
        self.dispatch(&idle, events, step, database);
        Ok(found)
    }

    /// What has become due goes where it is read.
    async fn promote(&mut self, idle: &[Idle]) -> Result<(), Error> {
        let now = Instant::now();
        let retry = self.shared.retries.next();
        if now < self.promote_at && retry.is_none_or(|due| now < due) {
            return Ok(());
        }
        let leases: Vec<Lease> = idle.iter().map(|idle| idle.lease).collect();
        // Forgotten only if the answer comes: what has become due since is looked for again.
        let promoted = self.shared.port.promote(&leases).await?;
        if promoted > 0 {
            self.shared.partitions.promoted(&leases);
        }
        self.shared.retries.forget_due(now);
        self.promote_at = now + self.shared.settings.poll;
        Ok(())
    }

    /// Most partitions have no parked keys, and reading is quicker where that is known.
    async fn look_for_parked(&mut self, idle: &mut [Idle]) -> Result<(), Error> {
        let stale = idle.iter().filter(|idle| idle.stale);
        let stale: Vec<u16> = stale.map(|idle| idle.lease.partition).collect();
        if stale.is_empty() {
            return Ok(());
        }
        let parked = self.shared.port.parked(&stale).await?;
        for idle in idle.iter_mut().filter(|idle| idle.stale) {
            idle.parked = parked.contains(&idle.lease.partition);
            self.shared.partitions.set_parked(idle.lease, idle.parked);
        }
        Ok(())
    }

    /// How many events may be on their way at once, beside those that are.
    fn room(&self) -> usize {
        let free = self.shared.settings.concurrency - self.batches.len();
        (self.shared.settings.batch * free.max(1)).min(self.reach)
    }

    /// How much there was, and how much of a partition the next read takes.
    fn judge(&mut self, events: &[Envelope], per_partition: usize, partitions: usize) -> Found {
        let mut of_partition: BTreeMap<u16, usize> = BTreeMap::new();
        for event in events {
            *of_partition.entry(event.partition).or_default() += 1;
        }
        self.first = self.first.wrapping_add(of_partition.len()) % partitions.max(1);
        let cut = of_partition.values().any(|count| *count >= per_partition);
        if events.len() >= self.room() {
            self.per_partition = (self.per_partition / 2).max(self.shared.least_per_partition());
            Found::Plenty
        } else if cut {
            self.per_partition = (self.per_partition * 2).min(self.shared.settings.batch);
            Found::Plenty
        } else if events.is_empty() {
            Found::Nothing
        } else {
            Found::Some
        }
    }

    /// Makes batches of what was read, each of whole partitions.
    fn dispatch(
        &mut self,
        idle: &[Idle],
        events: Vec<Envelope>,
        step: Option<usize>,
        database: Uuid,
    ) {
        // One event of each partition, and all in a single batch: it must be the only one on its way.
        let full = match step {
            Some(1) => usize::MAX,
            _ => self.shared.settings.batch,
        };
        // What was not reached is not known to be empty.
        let cut = events.len() >= self.room();
        let mut of_partition: BTreeMap<u16, Vec<Envelope>> = BTreeMap::new();
        for mut event in events {
            event.source = Arc::clone(&self.shared.settings.source);
            event.database = database;
            of_partition.entry(event.partition).or_default().push(event);
        }
        let (mut leases, mut batch) = (Vec::new(), Vec::new());
        for idle in idle {
            let Some(events) = of_partition.remove(&idle.lease.partition) else {
                if step.is_some() && !cut {
                    self.shared.partitions.trust(idle.lease);
                }
                continue;
            };
            if !batch.is_empty() && batch.len() + events.len() > full {
                self.start(&mut leases, &mut batch, step);
            }
            if self.batches.len() >= self.shared.settings.concurrency {
                // What there is no room for is read again.
                return;
            }
            leases.push(idle.lease);
            batch.extend(events);
        }
        self.start(&mut leases, &mut batch, step);
    }

    fn start(&mut self, leases: &mut Vec<Lease>, events: &mut Vec<Envelope>, step: Option<usize>) {
        if events.is_empty() {
            return;
        }
        let batch = Batch::start(Arc::clone(&self.shared), std::mem::take(leases));
        let events = std::mem::take(events);
        self.alone = step == Some(1);
        if self.alone {
            self.batches.spawn(batch.run_alone(events));
        } else {
            self.batches.spawn(batch.run(events));
        }
    }
}
