//! A body that panics, fails or loses its transaction: what the client sees, and what the key is worth afterwards.

use effectively_tests::{TestDb, on_every_database};

use crate::app::{Server, ShopDb};
use crate::client::assert_problem;

on_every_database!(
    a_panic_ends_the_connection_and_frees_the_key,
    a_panic_in_a_detached_body_is_an_answer_and_frees_the_key,
    an_error_of_the_application_answers_for_itself_and_frees_the_key,
    a_body_that_loses_its_transaction_is_a_server_error,
);

async fn a_panic_ends_the_connection_and_frees_the_key<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    let nothing = server.post("/ann/orders", "k", "panic").await;
    assert!(nothing.is_none(), "{nothing:?}");
    let retry = server.order("k", "panic").await;
    assert_eq!((retry.status, retry.is_replay()), (201, false));
    assert_eq!(server.stored().await, (1, 1, 1));
}

async fn a_panic_in_a_detached_body_is_an_answer_and_frees_the_key<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    let panicked = server.post("/ann/detached", "k", "panic").await;
    let panicked = panicked.expect("an answer");
    assert_problem(&panicked, 500, "handler_panicked");
    assert!(!panicked.text().contains("secret"));
    assert_eq!(server.stored().await, (0, 0, 0));
    let retry = server.post("/ann/detached", "k", "panic").await;
    let retry = retry.expect("an answer");
    assert_eq!((retry.status, retry.is_replay()), (201, false));
    assert_eq!(server.stored().await, (1, 1, 1));
}

async fn an_error_of_the_application_answers_for_itself_and_frees_the_key<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let server = Server::start(db).await;
    for run in 1..3 {
        let answer = server.order("k", "no tea").await;
        assert_eq!(
            (answer.status, &*answer.body),
            (418, &b"short and stout"[..])
        );
        assert!(!answer.is_replay());
        assert_eq!(server.hand.runs(), run);
    }
    assert_eq!(server.stored().await, (0, 0, 0));
    assert_eq!(server.order("k", "tea").await.status, 201);
}

async fn a_body_that_loses_its_transaction_is_a_server_error<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    let lost = server.order("k", "rollback").await;
    assert_problem(&lost, 500, "transaction_lost");
    let detail = lost.json()["detail"].as_str().expect("a text").to_owned();
    assert!(!detail.contains("ROLLBACK"), "{detail}");
    assert_eq!(server.stored().await.0, 0);
    let next = server.order("k", "rollback").await;
    if DB::NAME == "MySQL" {
        // Whatever came after the ROLLBACK is undone by ours: the key is free, and the body did it again.
        return assert_problem(&next, 500, "transaction_lost");
    }
    assert_problem(&next, 409, "idempotency_key_interrupted");
    assert_eq!(next.header("retry-after"), None, "an operator has to look");
    let interrupted = server.ledger.interrupted().await.expect("a list");
    assert_eq!(interrupted.len(), 1);
    let released = server.ledger.release_interrupted(interrupted[0].id).await;
    assert!(released.expect("an answer"));
    assert_eq!(server.order("k", "book").await.status, 201);
}
