//! Calls without a pause, and what their callers were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use effectively::Ledger;
use effectively_tests::{TestDb, eventually};
use sqlx::Pool;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::history::{End, History, began, ended};
use crate::marks::{Body, Book, mark_of, order_as};
use crate::shop::ShopDb;

/// As many tasks on one key after the other.
const TASKS: usize = 4;
/// Of each pool.
pub const CONNECTIONS: u32 = 4;
/// Calls that show that it works.
pub const ENOUGH: usize = 100;
/// How long a failover may take until calls succeed again.
const RECOVERY: Duration = Duration::from_secs(60);

/// Callers that go on until they are told to stop. Two of them share their keys.
pub struct Load {
    history: Arc<Mutex<History>>,
    acknowledged: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    callers: JoinSet<()>,
}

impl Load {
    /// Callers of one service, or one each of several.
    pub fn start<DB: ShopDb>(pools: &[Pool<DB>]) -> Self {
        let (history, acknowledged, stop) =
            <(Arc<Mutex<History>>, Arc<AtomicUsize>, Arc<AtomicBool>)>::default();
        let ledgers: Vec<_> = pools.iter().cloned().map(ledger).collect();
        let mut callers = JoinSet::new();
        for task in 0..TASKS {
            let ledger = ledgers[task % ledgers.len()].clone();
            let (history, acknowledged, stop) =
                (history.clone(), acknowledged.clone(), stop.clone());
            callers.spawn(async move {
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let mark = mark_of(&format!("{} {number}", task / 2));
                    let end = call(&ledger, &mark, &history).await;
                    match end {
                        End::Ran(_) | End::Replayed(_) => {
                            acknowledged.fetch_add(1, Ordering::SeqCst);
                        }
                        // As a client that is told to come back.
                        _ => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
            });
        }
        Self {
            history,
            acknowledged,
            stop,
            callers,
        }
    }

    /// Waits until so many more calls have succeeded.
    pub async fn succeeds(&self, calls: usize) {
        let enough = self.acknowledged.load(Ordering::SeqCst) + calls;
        eventually(RECOVERY, async || {
            let acknowledged = self.acknowledged.load(Ordering::SeqCst);
            (acknowledged >= enough)
                .then_some(())
                .ok_or(format!("{acknowledged} of {enough}"))
        })
        .await;
    }

    /// Waits until calls succeed again, and fail no more than a connection each may have left to do so.
    pub async fn recovers(&self) {
        self.succeeds(ENOUGH).await;
        let failed = self.failures().await;
        self.succeeds(ENOUGH).await;
        let failures = self.failures().await - failed;
        assert!(failures <= CONNECTIONS as usize, "{failures} more failures");
    }

    /// Waits until so many more calls have failed.
    pub async fn fails(&self, calls: usize) {
        let enough = self.failures().await + calls;
        eventually(RECOVERY, async || self.failures().await >= enough).await;
    }

    async fn failures(&self) -> usize {
        let failed = |end: &Option<&End>| matches!(end, Some(End::Failed(_)));
        self.history.lock().await.count(failed)
    }

    /// All that was acknowledged is replayed here, effects and events are there once, and what failed has left nothing.
    pub async fn check<DB: ShopDb>(self, db: &TestDb<DB>) {
        let (history, book) = self.end(db).await;
        history.check(&book).expect("a history that can be");
    }

    /// The same without the events, which a relay has taken.
    pub async fn check_calls<DB: ShopDb>(self, db: &TestDb<DB>) {
        let (history, mut book) = self.end(db).await;
        book.events = book.orders.clone();
        history.check(&book).expect("a history that can be");
    }

    /// Ends the callers, and asks for each of their keys once more.
    async fn end<DB: ShopDb>(mut self, db: &TestDb<DB>) -> (History, Book) {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.callers.join_next().await {
            ended.expect("no panic");
        }
        let mut history = std::mem::take(&mut *self.history.lock().await);
        let told = |end: &Option<&End>| matches!(end, Some(End::Ran(_) | End::Replayed(_)));
        assert!(history.count(told) >= ENOUGH, "too little happened");
        let ledger = Ledger::new(db.pool().clone());
        // The history knows which answer is the right one.
        for key in history.keys() {
            let mark = mark_of(&key);
            history.add(began(&mark));
            let answer = order_as(&ledger, &mark, Body::Returns).await;
            let (line, end) = ended(&mark, Ok(answer));
            history.add(line);
            assert!(matches!(end, End::Ran(_) | End::Replayed(_)), "{end:?}");
        }
        let book = Book::of(db).await;
        assert_eq!(book.orders.len(), history.keys().len());
        (history, book)
    }
}

fn ledger<DB: ShopDb>(pool: Pool<DB>) -> Ledger<DB> {
    let ledger = Ledger::builder(pool).unknown_commit_bound(Duration::from_secs(5));
    ledger.build().expect("a ledger")
}

async fn call<DB: ShopDb>(ledger: &Ledger<DB>, mark: &str, history: &Mutex<History>) -> End {
    history.lock().await.add(began(mark));
    let answer = order_as(ledger, mark, Body::Returns).await;
    let (line, end) = ended(mark, Ok(answer));
    history.lock().await.add(line);
    end
}
