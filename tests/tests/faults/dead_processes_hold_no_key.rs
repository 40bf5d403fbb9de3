//! I2 and I9: a process may be killed at any point. What it committed stays, what it had not is gone, and the key is free at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use effectively::Ledger;
use effectively::fault::{Action, POINTS, arm};
use effectively_tests::{TestDb, Worker, on_every_database};
use serde::{Deserialize, Serialize};

use crate::marks::{Body, Gate, answered, open, order, settled};
use crate::shop::ShopDb;

on_every_database!(
    a_process_killed_at_any_point_leaves_all_or_nothing,
    a_key_of_a_killed_process_is_free_at_once
);

#[derive(Serialize, Deserialize)]
struct Death {
    point: usize,
}

async fn a_process_killed_at_any_point_leaves_all_or_nothing<DB: ShopDb>(db: TestDb<DB>) {
    if let Some(death) = Worker::input::<Death>() {
        return die_at(&db, POINTS[death.point]).await;
    }
    let db = open(db).await;
    let mut workers: Vec<Worker> = (0..POINTS.len())
        .map(|point| db.worker(&Death { point }))
        .collect();
    let ledger = Ledger::new(db.pool().clone());
    for (worker, point) in workers.iter_mut().zip(POINTS) {
        worker.expect("armed").await;
        // Not by itself, not by a failed assertion: only `abort` ends it without a code.
        assert_eq!(
            worker.exit().await.code(),
            None,
            "{point}: it was not killed"
        );
        let retried = order(&ledger, point, Body::Returns).await;
        let replays = retried.as_ref().is_ok_and(|outcome| outcome.is_replay());
        assert_eq!(replays, point == "after_commit", "{point}: {retried:?}");
        answered(retried);
    }
    assert_eq!(settled(&db).await.orders.len(), POINTS.len());
}

async fn die_at<DB: ShopDb>(db: &TestDb<DB>, point: &'static str) {
    let ledger = Ledger::new(db.pool().clone());
    // The tables are looked at before a ledger's first claim.
    ledger.outbox().pending().await.expect("the outbox");
    let body = if point == "in_body" {
        Body::Aborts
    } else {
        arm(Some((point, Action::Kill)));
        Body::Returns
    };
    Worker::say("armed");
    let survived = order(&ledger, point, body).await;
    panic!("{point}: {survived:?}");
}

async fn a_key_of_a_killed_process_is_free_at_once<DB: ShopDb>(db: TestDb<DB>) {
    if Worker::input::<()>().is_some() {
        let (ledger, gate) = (Ledger::new(db.pool().clone()), Arc::new(Gate::default()));
        let body = Body::Stands(gate.clone());
        tokio::spawn(async move { order(&ledger, "held", body).await });
        gate.reached().await;
        Worker::say("holding");
        return Worker::wait_for_death().await;
    }
    let db = open(db).await;
    let ledger = Ledger::new(db.pool().clone());
    let mut worker = db.worker(&());
    worker.expect("holding").await;
    worker.kill();
    let begun = Instant::now();
    let next = order(&ledger, "held", Body::Returns).await;
    assert!(
        next.as_ref().is_ok_and(|outcome| !outcome.is_replay()),
        "{next:?}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(settled(&db).await.orders, [answered(next)]);
}
