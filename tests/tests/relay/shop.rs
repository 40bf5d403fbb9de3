//! An application that emits numbered events, and relays that publish them to memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use effectively::sink::Memory;
use effectively::{
    Dialect, Emit, Envelope, Error, Event, Failure, Key, Ledger, Relay, RelayBuilder,
};
use effectively_tests::{TestDb, TestServer, eventually};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A database of the suite that the toolkit works on.
pub trait ShopDb: TestServer + Dialect {}
impl<DB: TestServer + Dialect> ShopDb for DB {}

/// Longer than anything that is waited for; a test that reaches it has failed.
pub const SOON: Duration = Duration::from_secs(30);

/// The `number`th event of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    pub key: String,
    pub number: u64,
}

impl Numbered {
    pub fn of(key: &str, number: u64) -> Self {
        Self {
            key: key.to_owned(),
            number,
        }
    }

    pub fn from(event: &Envelope) -> Self {
        serde_json::from_slice(&event.data).expect("a numbered event")
    }
}

impl Event for Numbered {
    const TOPIC: &'static str = "numbers";
    const NAME: &'static str = "numbered.v1";

    fn partition_key(&self) -> Option<Cow<'_, str>> {
        Some(self.key.as_str().into())
    }
}

/// An event of another topic.
#[derive(Debug, Serialize)]
pub struct Mail(pub Numbered);

impl Event for Mail {
    const TOPIC: &'static str = "mail.welcome";
    const NAME: &'static str = "mail.v1";

    fn partition_key(&self) -> Option<Cow<'_, str>> {
        Some(self.0.key.as_str().into())
    }
}

pub struct Shop<DB: ShopDb> {
    pub db: TestDb<DB>,
    pub ledger: Ledger<DB>,
}

impl<DB: ShopDb> Shop<DB> {
    pub async fn open(db: TestDb<DB>) -> Self {
        let shop = Self::opened(db);
        shop.ledger.migrate().await.expect("the toolkit's tables");
        shop
    }

    /// In a worker: the parent has migrated.
    pub fn opened(db: TestDb<DB>) -> Self {
        let ledger = Ledger::new(db.pool().clone());
        Self { db, ledger }
    }

    /// Another process's ledger: another pool, and nothing of this one's memory.
    pub fn elsewhere(&self) -> Ledger<DB> {
        Ledger::new(self.db.pool_with(10, None))
    }

    /// One call that emits this.
    pub async fn emit(&self, emission: Emit<()>) {
        emit(&self.ledger, emission).await;
    }

    /// One call with the events `numbers` of each key.
    pub async fn numbers(&self, keys: &[&str], numbers: std::ops::Range<u64>) {
        let events =
            numbers.flat_map(|number| keys.iter().map(move |key| Numbered::of(key, number)));
        self.emit(Emit::new(()).events(events)).await;
    }

    pub async fn pending(&self) -> u64 {
        self.ledger.outbox().pending().await.expect("a count")
    }

    /// Waits until nothing is in the outbox any more.
    pub async fn drained(&self) {
        eventually(SOON, async || self.pending().await == 0).await;
    }

    /// How many partitions each relay holds.
    pub async fn holders(&self) -> Vec<usize> {
        let leases = self.ledger.outbox().leases().await.expect("the leases");
        let holders: BTreeSet<_> = leases.iter().filter_map(|lease| lease.holder).collect();
        let held = |holder| {
            leases
                .iter()
                .filter(|lease| lease.holder == Some(holder))
                .count()
        };
        holders.into_iter().map(held).collect()
    }

    /// A relay in this process, all numbers to this sink.
    pub fn relay(&self, sink: &Memory) -> Running {
        Running::start(brisk(self.ledger.clone()).route("numbers", sink.clone()))
    }
}

/// A relay whose waits are short.
pub fn brisk<DB: ShopDb>(ledger: Ledger<DB>) -> RelayBuilder<DB> {
    Relay::builder(ledger)
        .lease(Duration::from_secs(1))
        .poll(Duration::from_millis(20))
}

pub async fn emit<DB: ShopDb>(ledger: &Ledger<DB>, emission: Emit<()>) {
    let key = Key::new("emit", &[&uuid()]).expect("a key");
    let emitted: Result<_, Failure<Error>> = ledger
        .call(key)
        .run_with_events(async |_: &mut DB::Connection| Ok(emission))
        .await;
    emitted.expect("a committed call");
}

/// Different each time.
pub fn uuid() -> String {
    sqlx::types::Uuid::new_v4().to_string()
}

/// A relay that runs in this process. Dropped: as if it had crashed.
#[derive(Debug)]
pub struct Running {
    task: JoinHandle<Result<(), Error>>,
    end: Option<oneshot::Sender<()>>,
}

impl Running {
    pub fn start<DB: ShopDb>(relay: RelayBuilder<DB>) -> Self {
        let relay = relay.build().expect("a relay");
        let (end, ended) = oneshot::channel::<()>();
        let task = tokio::spawn(relay.run(async { _ = ended.await }));
        Self {
            task,
            end: Some(end),
        }
    }

    /// In order.
    pub async fn stop(mut self) {
        drop(self.end.take());
        let task = &mut self.task;
        task.await.expect("no panic").expect("an end in order");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What arrived, by key, in the order of the first copies. Fails where a first copy is not in the order of the numbers.
pub fn in_order(events: &[Envelope]) -> BTreeMap<String, Vec<u64>> {
    let mut seen = std::collections::HashSet::new();
    let mut of_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in events {
        if seen.insert(event.id) {
            let event = Numbered::from(event);
            of_key.entry(event.key).or_default().push(event.number);
        }
    }
    for (key, numbers) in &of_key {
        assert!(numbers.is_sorted(), "{key} arrived as {numbers:?}");
    }
    of_key
}
