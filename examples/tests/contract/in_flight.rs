//! A repetition while the first request is in its body waits for it, and is told when to come back.

use std::time::{Duration, Instant};

use effectively_tests::TestServer;

use crate::client::{assert_problem, assert_replayed, assert_retry_after, open, read};
use crate::server::{request, slow};
use crate::shop::Shop;

on_every_server!(at once and every database:
    a_repetition_in_flight_waits_two_seconds_and_is_told_to_come_back,
    a_repetition_in_flight_gets_the_first_answer_when_it_comes_in_time,
);

async fn a_repetition_in_flight_waits_two_seconds_and_is_told_to_come_back<DB: TestServer>(
    shop: Shop<DB>,
) {
    let first = open(shop.server.address, &request("k", &slow(4000))).await;
    shop.until_in_a_body().await;
    let began = Instant::now();
    // Another payload need not wait: no end of the first would make it right.
    let other = shop.server.order("k", "pot").await;
    assert_problem(&other, 422, "idempotency_key_mismatch");
    assert!(began.elapsed() < Duration::from_millis(1500));
    let began = Instant::now();
    let repeat = shop.server.ask("k", &slow(4000)).await;
    assert!(
        began.elapsed() >= Duration::from_millis(1900),
        "{:?}",
        began.elapsed()
    );
    assert_problem(&repeat, 409, "idempotency_key_in_flight");
    assert_retry_after(&repeat);
    let first = read(first).await.expect("an answer");
    assert_eq!(first.kind(), (201, false));
    assert_replayed(&first, &shop.server.ask("k", &slow(4000)).await);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn a_repetition_in_flight_gets_the_first_answer_when_it_comes_in_time<DB: TestServer>(
    shop: Shop<DB>,
) {
    let first = open(shop.server.address, &request("k", &slow(300))).await;
    shop.until_in_a_body().await;
    let repeat = shop.server.ask("k", &slow(300)).await;
    let first = read(first).await.expect("an answer");
    assert_eq!(first.kind(), (201, false));
    assert_replayed(&first, &repeat);
    assert_eq!(shop.stored().await, (1, 1, 1));
}
