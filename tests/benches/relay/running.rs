//! A relay at work.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use effectively::{Control, Error, Ledger, RelayBuilder};
use sqlx::Postgres;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longer than anything here should take.
const BOUND: Duration = Duration::from_secs(60);

/// Ends when it is dropped, as in a crash.
pub struct Running {
    control: Control,
    shutdown: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    pub fn start(relay: RelayBuilder<Postgres>) -> Self {
        Self::with(relay, |_| {})
    }

    /// Takes its leases, reads, and publishes nothing yet.
    pub fn paused(relay: RelayBuilder<Postgres>) -> Self {
        Self::with(relay, |control| control.pause("*").expect("a pattern"))
    }

    fn with(relay: RelayBuilder<Postgres>, before: impl FnOnce(&Control)) -> Self {
        let relay = relay.build().expect("a relay");
        let control = relay.control();
        before(&control);
        let (shutdown, asked) = oneshot::channel::<()>();
        let task = tokio::spawn(relay.run(async {
            // Dropping the other half asks for the end as well.
            let _ = asked.await;
        }));
        Self {
            control,
            shutdown,
            task,
        }
    }

    pub fn resume(&self) {
        self.control.resume("*").expect("a pattern");
    }

    /// In order: what is published is settled.
    pub async fn stop(self) {
        drop(self.shutdown);
        self.task.await.expect("no panic").expect("an ordered end");
    }
}

/// Waits until so many relays hold all partitions, each its share.
pub async fn spread(ledger: &Ledger<Postgres>, relays: usize) {
    until(async || {
        let mut held = BTreeMap::new();
        for lease in ledger.outbox().leases().await.expect("the leases") {
            *held.entry(lease.holder).or_insert(0) += 1;
        }
        let share = 64_usize.div_ceil(relays);
        held.len() == relays
            && held
                .iter()
                .all(|(holder, count)| holder.is_some() && *count <= share)
    })
    .await;
}

/// Asks every few milliseconds.
pub async fn until(mut question: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !question().await {
        assert!(Instant::now() < end, "still not so after {BOUND:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
