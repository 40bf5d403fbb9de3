//! SQLite has one writer. Within a process all are served in turn; who blocks everybody is told on, and costs nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use effectively::{ErrorKind, Ledger};
use effectively_tests::{TestDb, Worker, run};
use sqlx::Sqlite;
use sqlx::sqlite::SqlitePoolOptions;
use tokio::task::JoinSet;

use crate::marks::{Body, Gate, answered, open, order, settled};
use crate::shop::kind;

#[test]
fn a_hundred_keys_at_once_get_a_hundred_answers() {
    run::<Sqlite>(async |db| {
        let db = open(db).await;
        let ledger = Ledger::new(db.pool().clone());
        let mut calls = JoinSet::new();
        for number in 0..100 {
            let ledger = ledger.clone();
            calls.spawn(async move {
                let body = Body::Works(Duration::from_millis(100));
                answered(order(&ledger, &number.to_string(), body).await)
            });
        }
        let answers: BTreeSet<_> = calls.join_all().await.into_iter().collect();
        assert_eq!(answers.len(), 100);
        assert_eq!(settled(&db).await.orders.len(), 100);
    });
}

#[test]
fn a_writer_in_another_process_is_waited_for_with_a_bound() {
    run::<Sqlite>(async |db: TestDb<Sqlite>| {
        if Worker::input::<()>().is_some() {
            let mut tx = db
                .pool()
                .begin_with("begin immediate")
                .await
                .expect("the lock");
            sqlx::query("insert into orders values ('other#1')")
                .execute(&mut *tx)
                .await
                .expect("a write");
            Worker::say("writing");
            return Worker::wait_for_death().await;
        }
        let db = open(db).await;
        let options = db.options(None).busy_timeout(Duration::from_millis(700));
        let pool = SqlitePoolOptions::new().max_connections(4);
        let ledger = Ledger::new(pool.connect_lazy_with(options));
        let mut worker = db.worker(&());
        worker.expect("writing").await;
        let begun = Instant::now();
        let refused = order(&ledger, "a", Body::Returns).await;
        assert_eq!(kind(&refused), Some(ErrorKind::Unavailable));
        assert!(begun.elapsed() >= Duration::from_millis(700));
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{:?}",
            begun.elapsed()
        );
        worker.kill();
        let mark = answered(order(&ledger, "a", Body::Returns).await);
        assert_eq!(settled(&db).await.orders, [mark]);
    });
}

#[test]
fn a_queue_that_stands_still_is_left() {
    run::<Sqlite>(async |db| {
        let db = open(db).await;
        let (ledger, gate) = (Ledger::new(db.pool().clone()), Arc::new(Gate::default()));
        let standing = tokio::spawn({
            let (ledger, body) = (ledger.clone(), Body::Stands(gate.clone()));
            async move { answered(order(&ledger, "a", body).await) }
        });
        gate.reached().await;
        let begun = Instant::now();
        let mut queue = JoinSet::new();
        for number in 0..20 {
            let ledger = ledger.clone();
            queue.spawn(async move {
                kind(&order(&ledger, &format!("b{number}"), Body::Returns).await)
            });
        }
        let refused = queue.join_all().await;
        assert!(
            refused
                .iter()
                .all(|kind| *kind == Some(ErrorKind::Unavailable)),
            "{refused:?}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(9),
            "{:?}",
            begun.elapsed()
        );
        gate.open();
        let first = standing.await.expect("the one that stood");
        let second = answered(order(&ledger, "b0", Body::Returns).await);
        assert_eq!(
            BTreeSet::from_iter(settled(&db).await.orders),
            BTreeSet::from([first, second])
        );
    });
}
