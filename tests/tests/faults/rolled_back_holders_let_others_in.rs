//! I9: when the holder of a key rolls back, those who wait for it do not fall over each other. On InnoDB they would deadlock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use effectively::Ledger;
use effectively_tests::{TestDb, Worker, eventually, on_every_database};
use tokio::task::JoinSet;

use crate::marks::{Body, Gate, answered, open, order, order_with, settled};
use crate::sessions::waiting;
use crate::shop::{ShopDb, ShopError};
use crate::{marks, shop};

const PROCESSES: usize = 4;
const POOLS: usize = 5;

on_every_database!(twenty_waiters_elsewhere_converge_on_one_run);

async fn twenty_waiters_elsewhere_converge_on_one_run<DB: ShopDb>(db: TestDb<DB>) {
    if Worker::input::<()>().is_some() {
        return wait_from_many_pools(db).await;
    }
    let db = open(db).await;
    let gate = Arc::new(Gate::default());
    let holder = tokio::spawn({
        let (gate, ledger) = (gate.clone(), Ledger::new(db.pool().clone()));
        async move {
            order_with(
                &ledger,
                &marks::mark_of("one"),
                async |_: &mut DB::Connection| {
                    gate.stand().await;
                    Err(ShopError::GaveUp)
                },
            )
            .await
        }
    });
    gate.reached().await;
    let mut workers: Vec<Worker> = (0..PROCESSES).map(|_| db.worker(&())).collect();
    for worker in &mut workers {
        worker.expect("calling").await;
    }
    // SQLite shows nobody who waits: they ask for the lock again and again.
    if DB::VARIABLE.is_some() {
        let all = (PROCESSES * POOLS) as i64;
        eventually(Duration::from_secs(10), async || {
            Some(waiting(&db).await).filter(|&waiting| waiting == all)
        })
        .await;
    }
    gate.open();
    let gave_up = holder.await.expect("the holder's task");
    assert!(gave_up.is_err() && shop::kind(&gave_up).is_none());

    let mut answers = Vec::new();
    for worker in workers {
        answers.extend(worker.finish().await);
    }
    assert_eq!(answers.len(), PROCESSES * POOLS);
    let book = settled(&db).await;
    assert_eq!(
        BTreeSet::from_iter(answers),
        BTreeSet::from_iter(book.orders)
    );
}

/// Each pool has a ledger of its own, which knows nothing of the calls of the others.
async fn wait_from_many_pools<DB: ShopDb>(db: TestDb<DB>) {
    let mut calls = JoinSet::new();
    for _ in 0..POOLS {
        let ledger = Ledger::builder(db.pool_with(2, None)).wait(Duration::from_secs(30));
        let ledger = ledger.build().expect("a ledger");
        calls.spawn(async move { order(&ledger, "one", Body::Returns).await });
    }
    Worker::say("calling");
    for answer in calls.join_all().await {
        Worker::say(answered(answer));
    }
}
