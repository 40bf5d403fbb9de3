//! A replay is the first response, byte for byte, and says that it is one.

use std::collections::BTreeSet;

use effectively_tests::{TestDb, on_every_database};
use tokio::task::JoinSet;

use crate::app::{Server, ShopDb};
use crate::client::{Answer, assert_problem, exchange, post};

on_every_database!(
    a_replay_has_the_status_the_headers_and_the_body_of_the_first_response,
    a_response_without_a_body_is_replayed_without_one,
    a_recorded_refusal_is_replayed,
    the_same_key_with_another_body_is_refused,
    the_same_key_of_another_user_is_another_order,
    a_hundred_requests_at_once_with_one_key_are_one_order,
);

/// The headers but for those that belong to one response.
fn kept(answer: &Answer) -> Vec<&(String, String)> {
    let own = ["date", "idempotent-replayed", "cache-control", "connection"];
    let mut kept: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| !own.contains(&name.as_str()))
        .collect();
    kept.sort();
    kept
}

#[track_caller]
fn assert_replayed(first: &Answer, again: &Answer) {
    assert!(!first.is_replay() && again.is_replay());
    assert_eq!(first.status, again.status);
    assert_eq!(first.body, again.body);
    assert_eq!(kept(first), kept(again));
    assert_eq!(first.header("cache-control"), None);
    assert_eq!(again.header("cache-control"), Some("no-store"));
}

async fn a_replay_has_the_status_the_headers_and_the_body_of_the_first_response<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let server = Server::start(db).await;
    let first = server.order("k", "book").await;
    assert_eq!(first.status, 201);
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!(first.body, br#"{"item":"book","run":0}"#);
    for _ in 0..3 {
        assert_replayed(&first, &server.order("k", "book").await);
    }
    // Content is compared, not bytes.
    let spaced = post("/ann/orders", &[b"\"k\""], "{ \"item\" : \"book\" }");
    let again = exchange(server.address, &spaced).await;
    assert_replayed(&first, &again.expect("an answer"));
    assert_eq!(server.hand.runs(), 1);
    assert_eq!(server.stored().await, (1, 1, 1));
}

async fn a_response_without_a_body_is_replayed_without_one<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    let touch = async || {
        let answer = server.post("/ann/touch", "k", "").await;
        answer.expect("an answer")
    };
    let first = touch().await;
    assert_eq!((first.status, first.body.len()), (204, 0));
    assert_eq!(first.header("content-type"), None);
    assert_replayed(&first, &touch().await);
    assert_eq!(server.stored().await, (1, 0, 1));
}

async fn a_recorded_refusal_is_replayed<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    let first = server.order("k", "sold out").await;
    assert_eq!((first.status, &*first.body), (402, &b"\"sold out\""[..]));
    assert_eq!(first.header("x-reason"), Some("stock"));
    assert_replayed(&first, &server.order("k", "sold out").await);
    assert_eq!(server.hand.runs(), 1);
    assert_eq!(server.stored().await, (0, 0, 1));
}

async fn the_same_key_with_another_body_is_refused<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    let first = server.order("k", "book").await;
    let other = server.order("k", "pen").await;
    assert_problem(&other, 422, "idempotency_key_mismatch");
    assert_eq!(other.header("retry-after"), None);
    assert_replayed(&first, &server.order("k", "book").await);
    assert_eq!(server.stored().await, (1, 1, 1));
}

async fn the_same_key_of_another_user_is_another_order<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    server.order("k", "book").await;
    let bob = server.post("/bob/orders", "k", "pen").await;
    let bob = bob.expect("an answer");
    assert_eq!((bob.status, bob.is_replay()), (201, false));
    assert_eq!(bob.json()["item"], "pen");
    assert_eq!(server.stored().await, (2, 2, 2));
}

async fn a_hundred_requests_at_once_with_one_key_are_one_order<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    let request = post("/ann/detached", &[b"\"k\""], r#"{"item":"book"}"#);
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let (address, request) = (server.address, request.clone());
        requests.spawn(async move { exchange(address, &request).await.expect("an answer") });
    }
    let answers = requests.join_all().await;
    assert!(answers.iter().all(|answer| answer.status == 201));
    let bodies: BTreeSet<_> = answers.iter().map(|answer| &answer.body).collect();
    assert_eq!(bodies.len(), 1, "equal bytes");
    let first: Vec<_> = answers
        .iter()
        .filter(|answer| !answer.is_replay())
        .collect();
    assert_eq!(first.len(), 1);
    assert_eq!(server.hand.runs(), 1);
    assert_eq!(server.stored().await, (1, 1, 1));
}
