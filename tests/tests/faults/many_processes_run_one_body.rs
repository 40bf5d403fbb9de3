//! I1 and I6 over processes: they share nothing but the database.

use std::collections::BTreeSet;
use std::time::Duration;

use effectively::{ErrorKind, Ledger};
use effectively_tests::{TestDb, Worker, on_every_database};
use tokio::task::JoinSet;

use crate::marks::{Body, answered, open, order, settled};
use crate::shop::{ShopDb, kind};

const PROCESSES: usize = 4;
const TASKS: usize = 25;

on_every_database!(four_processes_with_a_hundred_calls_run_one_body);

async fn four_processes_with_a_hundred_calls_run_one_body<DB: ShopDb>(db: TestDb<DB>) {
    if Worker::input::<()>().is_some() {
        return call_at_once(db).await;
    }
    let db = open(db).await;
    let mut workers: Vec<Worker> = (0..PROCESSES).map(|_| db.worker(&())).collect();
    for worker in &mut workers {
        worker.expect("ready").await;
    }
    for worker in &mut workers {
        worker.tell("go");
    }
    let mut answers = Vec::new();
    for worker in workers {
        answers.extend(worker.finish().await);
    }
    assert_eq!(answers.len(), PROCESSES * TASKS);
    answers.retain(|answer| answer != "in flight");
    assert!(answers.len() >= TASKS, "the process that ran it has them");
    let book = settled(&db).await;
    assert_eq!(book.orders.len(), 1);
    assert_eq!(
        BTreeSet::from_iter(answers),
        BTreeSet::from_iter(book.orders),
        "equal bytes"
    );
}

async fn call_at_once<DB: ShopDb>(db: TestDb<DB>) {
    let ledger = Ledger::new(db.pool().clone());
    Worker::say("ready");
    assert_eq!(Worker::listen().await, "go");
    let mut calls = JoinSet::new();
    for _ in 0..TASKS {
        let ledger = ledger.clone();
        calls.spawn(
            async move { order(&ledger, "one", Body::Works(Duration::from_millis(50))).await },
        );
    }
    for answer in calls.join_all().await {
        match kind(&answer) {
            Some(ErrorKind::InFlight) => Worker::say("in flight"),
            _ => Worker::say(answered(answer)),
        }
    }
}
