//! Duplicates that wait for another process must not eat the pool that other keys need.

use std::sync::Arc;
use std::time::{Duration, Instant};

use effectively::{ErrorKind, Ledger};
use effectively_tests::{TestDb, Worker, eventually, on_every_database};
use tokio::task::JoinSet;

use crate::marks::{Body, Gate, answered, open, order, settled};
use crate::sessions::waiting;
use crate::shop::{ShopDb, kind};

const POOL: u32 = 5;
const HELD: [&str; 5] = ["h0", "h1", "h2", "h3", "h4"];

// On SQLite the process that holds the write lock holds up all others: there is no other key to serve.
on_every_database!([postgres, mysql] a_sixth_key_is_served_while_duplicates_wait_for_five);

async fn a_sixth_key_is_served_while_duplicates_wait_for_five<DB: ShopDb>(db: TestDb<DB>) {
    if Worker::input::<()>().is_some() {
        return hold_five_keys(db).await;
    }
    let db = open(db).await;
    let mut worker = db.worker(&());
    worker.expect("holding").await;

    let ledger = Ledger::builder(db.pool_with(POOL, None)).wait(Duration::from_secs(20));
    let ledger = ledger.build().expect("a ledger");
    answered(order(&ledger, "warm", Body::Returns).await);
    let mut duplicates = JoinSet::new();
    for number in 0..120 {
        // A hundred with one key, five with each of the others.
        let key = HELD[if number < 100 { 0 } else { 1 + number % 4 }];
        let ledger = ledger.clone();
        duplicates.spawn(async move { order(&ledger, key, Body::Returns).await });
    }
    eventually(Duration::from_secs(10), async || waiting(&db).await > 0).await;
    let mut most = 0;
    for number in 0..20 {
        let begun = Instant::now();
        answered(order(&ledger, &format!("free {number}"), Body::Returns).await);
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{:?}",
            begun.elapsed()
        );
        most = most.max(waiting(&db).await);
    }
    assert_eq!(most, i64::from(POOL / 4), "a quarter of the pool waits");

    worker.tell("go");
    assert_eq!(worker.finish().await, ["done"]);
    let (mut replays, mut in_flight) = (0, 0);
    for answer in duplicates.join_all().await {
        match kind(&answer) {
            Some(ErrorKind::InFlight) => in_flight += 1,
            _ => {
                assert!(
                    answer.as_ref().is_ok_and(|outcome| outcome.is_replay()),
                    "{answer:?}"
                );
                replays += 1;
            }
        }
    }
    assert_eq!(replays + in_flight, 120);
    assert!(replays > 0 && in_flight > 0, "{replays} and {in_flight}");
    assert_eq!(settled(&db).await.orders.len(), HELD.len() + 1 + 20);
}

async fn hold_five_keys<DB: ShopDb>(db: TestDb<DB>) {
    let ledger = Ledger::new(db.pool().clone());
    let gates: [Arc<Gate>; HELD.len()] = Default::default();
    let mut calls = JoinSet::new();
    for (gate, key) in gates.iter().zip(HELD) {
        let (ledger, body) = (ledger.clone(), Body::Stands(gate.clone()));
        calls.spawn(async move { order(&ledger, key, body).await });
        gate.reached().await;
    }
    Worker::say("holding");
    assert_eq!(Worker::listen().await, "go");
    for gate in &gates {
        gate.open();
    }
    for answer in calls.join_all().await {
        answered(answer);
    }
    Worker::say("done");
}
