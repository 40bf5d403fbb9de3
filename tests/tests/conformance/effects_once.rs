//! I1, I2, I6: one committed set of effects per key, and every answer is the same bytes.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use effectively_tests::{TestDb, on_every_database};
use tokio::task::JoinSet;

use crate::shop::{Shop, ShopDb, order_on};

on_every_database!(
    a_second_call_replays_the_first_answer,
    a_hundred_calls_at_once_run_one_body
);

async fn a_second_call_replays_the_first_answer<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let first = shop.order("a").await.expect("the first answer");
    let second = shop.order("a").await.expect("the second answer");
    assert!(!first.is_replay() && second.is_replay());
    assert_eq!(first.recorded(), second.recorded());
    assert_eq!(second.into_result().expect("a response"), "run 0");
    assert_eq!(
        (
            shop.orders().await,
            shop.events().await,
            shop.claims().await
        ),
        (1, 1, 1)
    );
}

async fn a_hundred_calls_at_once_run_one_body<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let (ledger, runs) = (shop.ledger.clone(), shop.runs.clone());
        calls.spawn(async move { order_on(&ledger, &runs, "a", Duration::from_millis(50)).await });
    }
    let answers: Vec<_> = calls
        .join_all()
        .await
        .into_iter()
        .map(|answer| answer.expect("an answer"))
        .collect();
    let bodies: BTreeSet<_> = answers
        .iter()
        .map(|answer| answer.recorded().body().to_vec())
        .collect();
    assert_eq!(bodies.len(), 1, "equal bytes");
    assert_eq!(
        answers.iter().filter(|answer| !answer.is_replay()).count(),
        1
    );
    assert_eq!(shop.runs.load(Ordering::SeqCst), 1);
    assert_eq!((shop.orders().await, shop.events().await), (1, 1));
}
