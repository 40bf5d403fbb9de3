//! One batch: what was read is published, then what came of it is settled. No connection is held while a sink works.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::task::JoinSet;
use tracing::Instrument;

use super::{
    Shared,
    partitions::Finish,
    publish::{Answered, Published, publish},
    route::Order,
};
use crate::{
    error::Error,
    fault::{self, Bug},
    model::{Envelope, backoff::pause},
    sink::{Delivery, Rejected},
    store::{Dialect, Lease, Postponed},
};

/// What becomes of an event that a sink has rejected.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Waits { delay: Duration, passable: bool },
    Dead,
}

/// Events of some partitions, in the order of each, and the leases they stand on.
pub(super) struct Batch<DB: Dialect> {
    shared: Arc<Shared<DB>>,
    leases: Vec<Lease>,
    /// The partitions whose end was not said yet: a batch that is dropped says it for them.
    open: Vec<(Lease, Finish)>,
    /// The database failed before a sink was asked.
    failed: bool,
}

impl<DB: Dialect> Batch<DB> {
    /// From here on nobody else reads these partitions.
    pub(super) fn start(shared: Arc<Shared<DB>>, leases: Vec<Lease>) -> Self {
        shared.partitions.start(&leases);
        Self {
            open: leases.iter().map(|lease| (*lease, Finish::Well)).collect(),
            shared,
            leases,
            failed: false,
        }
    }

    /// Publishes and settles.
    pub(super) async fn run(mut self, events: Vec<Envelope>) {
        let published = self.publish(events, false).await;
        self.settle(published).await;
    }

    /// After a death: each event by itself, while nothing else is published in this process. One that has been there at several
    /// deaths is not published again.
    pub(super) async fn run_alone(mut self, events: Vec<Envelope>) {
        for event in events {
            let published = self.publish(vec![event], true).await;
            if self.failed {
                // Nothing was published, so nothing has shown that more may be at once.
                return self.finish_all(Finish::Unsettled);
            }
            self.settle(published).await;
        }
    }

    /// Each route by itself, so that a slow one does not hold up what the others have to settle any longer than it must.
    async fn publish(&mut self, events: Vec<Envelope>, noted: bool) -> Vec<Answered> {
        let mut of_route: BTreeMap<usize, Vec<Envelope>> = BTreeMap::new();
        for event in events {
            if let Some(route) = self.shared.routes.of(&event.topic) {
                of_route.entry(route).or_default().push(event);
            }
        }
        let mut tasks = JoinSet::new();
        for (route, events) in of_route {
            let (shared, leases) = (Arc::clone(&self.shared), self.leases.clone());
            tasks.spawn(async move {
                let begun = Instant::now();
                let span = tracing::debug_span!(
                    target: "effectively::relay", "publish", route = %shared.routes.get(route).pattern, events = events.len()
                );
                let published = publish(&shared, route, events, &leases, noted)
                    .instrument(span)
                    .await;
                count(&shared, route, &published, begun.elapsed());
                published
            });
        }
        let mut answers = Vec::new();
        while let Some(published) = tasks.join_next().await {
            let Ok(published) = published else {
                tracing::error!(target: "effectively::relay", "publishing panicked; its events are published one at a time from here");
                self.finish_all(Finish::Panicked);
                continue;
            };
            if published.panicked {
                self.finish_all(Finish::Panicked);
            }
            self.failed |= published.failed;
            answers.extend(published.answers);
        }
        answers
    }

    async fn settle(&mut self, answers: Vec<Answered>) {
        // An event that is buried for its deaths was not published.
        if answers.iter().any(Answered::is_of_the_sink)
            && fault::point("after_publish").await.is_err()
        {
            return self.finish_all(Finish::Unsettled);
        }
        let published = |answered: &Answered| {
            answered.delivery.is_published() || fault::is_planted(Bug::SettlesUnpublished)
        };
        let ids = answers.iter().filter(|answered| published(answered));
        let ids: Vec<_> = ids
            .map(|answered| (answered.partition, answered.outbox_id))
            .collect();
        if !ids.is_empty() && !self.settle_published(&ids).await {
            return self.finish_all(Finish::Unsettled);
        }
        for answered in answers {
            if let Delivery::Rejected(rejected) = &answered.delivery {
                self.settle_rejected(&answered, rejected).await;
            }
        }
    }

    /// Until it is done or every lease has ended: what was published must not be published again.
    async fn settle_published(&mut self, ids: &[(u16, i64)]) -> bool {
        let mut tries = 0;
        let shared = Arc::clone(&self.shared);
        let held = |lease: &Lease| shared.partitions.until(&[*lease]).is_some();
        while self.leases.iter().any(held) {
            match self.shared.port.settle(&self.leases, ids).await {
                Ok(settled) if settled < ids.len() as u64 => {
                    let lost = ids.len() as u64 - settled;
                    metrics::counter!("effectively_relay_unsettled_total").increment(lost);
                    tracing::warn!(target: "effectively::relay", lost, "a lease was lost: another relay may publish again what was published");
                    if tries == 0 {
                        // Not read again before the leases were looked at: it would be published over and over.
                        self.finish_all(Finish::Unwritten);
                    }
                    return true;
                }
                Ok(_) => return true,
                Err(error) => failed(&error),
            }
            tries += 1;
            tokio::time::sleep(pause(tries)).await;
        }
        false
    }

    async fn settle_rejected(&mut self, answered: &Answered, rejected: &Rejected) {
        let Some(lease) = self.lease(answered.partition) else {
            return;
        };
        let route = &self.shared.routes.get(answered.route).route;
        let attempts = answered.attempts.saturating_add(1);
        let given_up = rejected.is_fatal() || attempts >= route.attempts;
        if given_up && self.bury(lease, answered.outbox_id, rejected).await {
            return;
        }
        // One that cannot be made a dead letter waits for the next try, too.
        let delay = route.pause(attempts);
        let passable = route.order == Order::Skip;
        let waits = Fate::Waits { delay, passable };
        let postponed = self.written(lease, answered.outbox_id, waits, rejected);
        let postponed = postponed.await;
        // Whatever the answer, or if none came: the event may wait now, and what is behind it must not pass it.
        self.shared.partitions.set_stale(&[lease]);
        self.shared.retries.add(delay);
        match postponed {
            Ok(true) => {
                tracing::warn!(
                    target: "effectively::relay", outbox_id = answered.outbox_id, attempts, reason = rejected.reason(),
                    delay_ms = delay.as_millis(), "an event was rejected and is tried again"
                );
            }
            Ok(false) => {}
            Err(error) => {
                failed(&error);
                self.shared.partitions.unanswered(lease);
                // It stands where it stood: the sink would be asked again at once.
                self.finish(lease, Finish::Unwritten);
            }
        }
    }

    /// Whether that is done, or the event is another relay's.
    async fn bury(&self, lease: Lease, outbox_id: i64, rejected: &Rejected) -> bool {
        let buried = self.written(lease, outbox_id, Fate::Dead, rejected);
        match buried.await {
            Ok(true) => {
                metrics::counter!("effectively_relay_dead_letters_total").increment(1);
                tracing::error!(
                    target: "effectively::relay", outbox_id, reason = rejected.reason(),
                    "an event was given up: it is a dead letter now"
                );
            }
            Ok(false) => {}
            Err(error) => {
                failed(&error);
                return false;
            }
        }
        true
    }

    /// Writes down what a sink has said of an event, so that it is not asked again: until it is done, the lease has ended, or the
    /// database refuses it even in plain ASCII, which every encoding has.
    async fn written(
        &self,
        lease: Lease,
        outbox_id: i64,
        fate: Fate,
        rejected: &Rejected,
    ) -> Result<bool, Error> {
        let port = &self.shared.port;
        let plain = rejected.reason().replace(|c: char| !c.is_ascii(), "?");
        let mut reason = rejected.reason();
        let mut tries = 0;
        loop {
            let written = match fate {
                Fate::Dead => port.bury(lease, outbox_id, reason).await,
                Fate::Waits { delay, passable } => {
                    let how = Postponed {
                        delay,
                        reason,
                        passable,
                    };
                    port.postpone(lease, outbox_id, how).await
                }
            };
            match written {
                Err(error) if error.is_retryable() => {
                    if self.shared.partitions.until(&[lease]).is_none() {
                        return Err(error);
                    }
                    failed(&error);
                    tries += 1;
                    tokio::time::sleep(pause(tries)).await;
                }
                Err(_) if reason != plain => reason = &plain,
                written => return written,
            }
        }
    }

    fn lease(&self, partition: u16) -> Option<Lease> {
        let of = |lease: &&Lease| lease.partition == partition;
        self.leases.iter().find(of).copied()
    }

    fn finish(&mut self, lease: Lease, finish: Finish) {
        for open in self.open.iter_mut().filter(|open| open.0 == lease) {
            open.1 = finish;
        }
    }

    fn finish_all(&mut self, finish: Finish) {
        for open in &mut self.open {
            open.1 = finish;
        }
    }
}

impl<DB: Dialect> Drop for Batch<DB> {
    fn drop(&mut self) {
        // One event at a time finds the one over which it panicked, as after the death of a process.
        let panicked = std::thread::panicking().then_some(Finish::Panicked);
        for (lease, finish) in &self.open {
            let full = self.shared.settings.batch;
            self.shared
                .partitions
                .finish(*lease, panicked.unwrap_or(*finish), full);
        }
    }
}

fn failed(error: &Error) {
    tracing::warn!(target: "effectively::relay", %error, "the database failed");
}

fn count<DB: Dialect>(shared: &Shared<DB>, route: usize, published: &Published, took: Duration) {
    let route = shared.routes.get(route).pattern.to_string();
    let mut rejected = 0;
    let mut done = 0;
    let lag = metrics::histogram!("effectively_relay_lag_seconds", "route" => route.clone());
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    for answered in &published.answers {
        match &answered.delivery {
            Delivery::Published => {
                done += 1;
                lag.record(now.saturating_sub(answered.staged_at).as_secs_f64());
            }
            Delivery::Rejected(_) => rejected += 1,
            Delivery::Unavailable(_) | Delivery::Held => {}
        }
    }
    metrics::counter!("effectively_relay_published_total", "route" => route.clone())
        .increment(done);
    metrics::counter!("effectively_relay_rejected_total", "route" => route.clone())
        .increment(rejected);
    metrics::histogram!("effectively_relay_publish_seconds", "route" => route)
        .record(took.as_secs_f64());
}
