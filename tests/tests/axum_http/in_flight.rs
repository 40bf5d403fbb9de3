//! A repeat while the first request is in its body waits for it, and is told when to come back.

use std::time::{Duration, Instant};

use effectively_tests::{TestDb, on_every_database};

use crate::app::{Server, ShopDb};
use crate::client::{assert_problem, open, post, read};

const BODY: &str = r#"{"item":"slow"}"#;

on_every_database!(
    a_repeat_in_flight_waits_and_is_then_told_to_come_back,
    a_repeat_in_flight_gets_the_first_response_when_it_comes_in_time,
    another_body_in_flight_is_refused_at_once,
);

async fn a_repeat_in_flight_waits_and_is_then_told_to_come_back<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    let first = open(server.address, &post("/ann/orders", &[b"\"k\""], BODY)).await;
    server.hand.entered().await;
    let began = Instant::now();
    let repeat = server.order("k", "slow").await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_problem(&repeat, 409, "idempotency_key_in_flight");
    let seconds = repeat.header("retry-after").expect("a time to come back");
    assert!(seconds.parse::<u64>().is_ok_and(|seconds| seconds >= 1));
    server.hand.let_go();
    let first = read(first).await.expect("an answer");
    assert_eq!((first.status, first.is_replay()), (201, false));
    let again = server.order("k", "slow").await;
    assert!(again.is_replay() && again.body == first.body);
    assert_eq!(server.stored().await, (1, 1, 1));
}

async fn a_repeat_in_flight_gets_the_first_response_when_it_comes_in_time<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let server = Server::start(db).await;
    let request = post("/ann/detached", &[b"\"k\""], BODY);
    let first = open(server.address, &request).await;
    server.hand.entered().await;
    let repeat = open(server.address, &request).await;
    tokio::task::yield_now().await;
    server.hand.let_go();
    let (first, repeat) = tokio::join!(read(first), read(repeat));
    let (first, repeat) = (first.expect("an answer"), repeat.expect("an answer"));
    assert_eq!((first.status, repeat.status), (201, 201));
    assert!(!first.is_replay() && repeat.is_replay());
    assert_eq!(first.body, repeat.body);
    assert_eq!(server.hand.runs(), 1);
}

async fn another_body_in_flight_is_refused_at_once<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    let first = open(server.address, &post("/ann/detached", &[b"\"k\""], BODY)).await;
    server.hand.entered().await;
    // The first goes on only after this: a request that waited for it would not come back.
    let other = server.post("/ann/detached", "k", "pen").await;
    assert_problem(&other.expect("an answer"), 422, "idempotency_key_mismatch");
    server.hand.let_go();
    assert_eq!(read(first).await.expect("an answer").status, 201);
    assert_eq!(server.stored().await, (1, 1, 1));
}
