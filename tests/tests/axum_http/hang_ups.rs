//! A client that hangs up while its request is in the body, and comes back: the right answer, and one effect.

use effectively_tests::{TestDb, on_every_database};

use crate::app::{Server, ShopDb};
use crate::client::{open, post};

const BODY: &str = r#"{"item":"slow"}"#;

on_every_database!(
    a_client_that_hangs_up_on_an_attached_body_stops_it_and_its_retry_is_the_first_answer,
    a_client_that_hangs_up_on_a_detached_body_gets_its_answer_with_the_retry,
    a_client_that_hangs_up_on_a_detached_body_and_comes_back_early_waits_for_it,
);

async fn a_client_that_hangs_up_on_an_attached_body_stops_it_and_its_retry_is_the_first_answer<
    DB: ShopDb,
>(
    db: TestDb<DB>,
) {
    let server = Server::start(db).await;
    let client = open(server.address, &post("/ann/orders", &[b"\"k\""], BODY)).await;
    server.hand.entered().await;
    drop(client);
    // The body is gone without having been let go.
    server.hand.left().await;
    server.hand.let_go();
    let retry = server.order("k", "slow").await;
    assert_eq!((retry.status, retry.is_replay()), (201, false));
    assert_eq!(retry.json()["run"], 1);
    assert_eq!(server.stored().await, (1, 1, 1));
    assert!(server.order("k", "slow").await.is_replay());
}

async fn a_client_that_hangs_up_on_a_detached_body_gets_its_answer_with_the_retry<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let server = Server::start(db).await;
    let client = open(server.address, &post("/ann/detached", &[b"\"k\""], BODY)).await;
    server.hand.entered().await;
    drop(client);
    server.hand.let_go();
    server.hand.left().await;
    let retry = server.post("/ann/detached", "k", "slow").await;
    let retry = retry.expect("an answer");
    assert_eq!((retry.status, retry.is_replay()), (201, true));
    assert_eq!(retry.json()["run"], 0);
    assert_eq!(server.hand.runs(), 1);
    assert_eq!(server.stored().await, (1, 1, 1));
}

async fn a_client_that_hangs_up_on_a_detached_body_and_comes_back_early_waits_for_it<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let server = Server::start(db).await;
    let client = open(server.address, &post("/ann/detached", &[b"\"k\""], BODY)).await;
    server.hand.entered().await;
    drop(client);
    let (retry, ()) = tokio::join!(server.post("/ann/detached", "k", "slow"), async {
        tokio::task::yield_now().await;
        server.hand.let_go();
    });
    let retry = retry.expect("an answer");
    assert_eq!((retry.status, retry.is_replay()), (201, true));
    assert_eq!(server.hand.runs(), 1);
    assert_eq!(server.stored().await, (1, 1, 1));
}
