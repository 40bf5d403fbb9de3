//! The counting loop: each point of a call fails, panics or stalls in turn, and after each one everything must go on.

use std::sync::Arc;
use std::time::Duration;

use effectively::Ledger;
use effectively::fault::{Action, POINTS, arm, fired};
use effectively_tests::{TestDb, Worker, eventually, on_every_database};

use crate::marks::{Answer, BOUND, Body, Gate, answered, open, order, settled};
use crate::shop::ShopDb;

const ACTIONS: [Action; 3] = [Action::Error, Action::Panic, Action::Stall];

on_every_database!(after_each_fault_a_retry_succeeds);

async fn after_each_fault_a_retry_succeeds<DB: ShopDb>(db: TestDb<DB>) {
    if Worker::input::<()>().is_some() {
        return count_through(db).await;
    }
    let db = open(db).await;
    // Points belong to a process: in this one, the other tests pass them too.
    let said = db.worker(&()).finish().await;
    assert_eq!(said, ["all points"]);
    let book = settled(&db).await;
    assert_eq!(book.orders.len(), POINTS.len() * ACTIONS.len());
}

async fn count_through<DB: ShopDb>(db: TestDb<DB>) {
    // A connection that did not come back, or came back in a transaction, would stop the next round.
    let pool = db.pool_with(1, None);
    let ledger = Ledger::new(pool.clone());
    ledger.outbox().pending().await.expect("the outbox");
    for point in POINTS {
        for action in ACTIONS {
            let key = format!("{point} {action:?}");
            let first = fail_once(&ledger, &key, point, action).await;
            let stayed = settled(&db).await.orders_of(&key).len();
            assert_eq!(stayed, usize::from(point == "after_commit"), "{key}");
            assert_eq!(
                first.as_ref().is_some_and(Answer::is_ok),
                point == "after_commit" && action == Action::Error,
                "{key}: {first:?}"
            );
            let retried = order(&ledger, &key, Body::Returns).await;
            let replays = retried.as_ref().is_ok_and(|outcome| outcome.is_replay());
            assert_eq!(replays, stayed == 1, "{key}: {retried:?}");
            assert_eq!(settled(&db).await.orders_of(&key), [answered(retried)]);
            eventually(BOUND, async || pool.num_idle() == 1).await;
        }
    }
    Worker::say("all points");
}

/// The answer of the call that met the fault. `None`: it panicked, or stood still and was dropped.
async fn fail_once<DB: ShopDb>(
    ledger: &Ledger<DB>,
    key: &str,
    point: &'static str,
    action: Action,
) -> Option<Answer> {
    let before = fired();
    let gate = Arc::new(Gate::default());
    let in_body = point == "in_body";
    let body = match action {
        _ if !in_body => Body::Returns,
        Action::Error => Body::GivesUp,
        Action::Panic => Body::Panics,
        Action::Stall | Action::Kill => Body::Stands(gate.clone()),
    };
    if !in_body {
        arm(Some((point, action)));
    }
    let call = tokio::spawn({
        let (ledger, key) = (ledger.clone(), key.to_owned());
        async move { order(&ledger, &key, body).await }
    });
    if action == Action::Stall {
        if in_body {
            gate.reached().await;
        } else {
            eventually(Duration::from_secs(10), async || fired() > before).await;
        }
        call.abort();
    }
    let ended = call.await;
    assert_eq!(
        fired(),
        before + u64::from(!in_body),
        "{key}: it never fired"
    );
    ended.ok()
}
