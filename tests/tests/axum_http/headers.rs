//! The `Idempotency-Key` header: missing or malformed it is 400, before anything happens.

use effectively_tests::{TestDb, on_every_database};

use crate::app::{Server, ShopDb};
use crate::client::{assert_problem, exchange, post};

const BODY: &str = r#"{"item":"book"}"#;

on_every_database!(
    a_missing_key_is_refused,
    a_malformed_key_is_refused,
    a_key_that_is_empty_or_too_long_is_refused,
    the_longest_key_and_every_printable_one_are_taken,
    a_request_that_is_none_of_the_handlers_claims_nothing,
);

async fn refused<DB: ShopDb>(server: &Server<DB>, keys: &[&[u8]], code: &str) {
    let answer = exchange(server.address, &post("/ann/orders", keys, BODY)).await;
    let answer = answer.expect("an answer");
    assert_problem(&answer, 400, code);
    assert_eq!(answer.header("retry-after"), None, "a retry is no use");
    assert_eq!(server.hand.runs(), 0);
    assert_eq!(server.stored().await, (0, 0, 0));
}

async fn a_missing_key_is_refused<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    refused(&server, &[], "idempotency_key_missing").await;
}

async fn a_malformed_key_is_refused<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    let malformed: [&[&[u8]]; 16] = [
        &[b"8e03978e"],
        &[b"42"],
        &[b"4.2"],
        &[b"?1"],
        &[b"@1659578233"],
        &[b":aGVsbG8=:"],
        &[b"(\"a\" \"b\")"],
        &[b"\"a\", \"b\""],
        &[b"\"a\"", b"\"a\""],
        &[b"\"a\"", b"\"b\""],
        &[b"\"unterminated"],
        &[b"\"bad\\escape\""],
        &[b"\"caf\xc3\xa9\""],
        &[b"\"caf\xe9\""],
        &[b"'single'"],
        &[b""],
    ];
    for keys in malformed {
        refused(&server, keys, "idempotency_key_invalid").await;
    }
}

async fn a_key_that_is_empty_or_too_long_is_refused<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    refused(&server, &[b"\"\""], "idempotency_key_invalid").await;
    let long = format!("\"{}\"", "k".repeat(256));
    refused(&server, &[long.as_bytes()], "idempotency_key_invalid").await;
}

async fn the_longest_key_and_every_printable_one_are_taken<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    let printable: String = (' '..='~').filter(|c| !"\"\\".contains(*c)).collect();
    let escaped = r#"\"\\"#.to_owned();
    let keys = ["k".repeat(255), printable, escaped, "a".into()];
    for replayed in [false, true] {
        for key in &keys {
            let answer = server.order(key, "book").await;
            assert_eq!((answer.status, answer.is_replay()), (201, replayed));
        }
    }
    // Parameters of the item change nothing, nor does white space around it.
    for key in [&b"\"a\";v=1"[..], b"   \"a\"  "] {
        let answer = exchange(server.address, &post("/ann/orders", &[key], BODY)).await;
        assert!(answer.expect("an answer").is_replay());
    }
    assert_eq!(server.stored().await, (4, 4, 4));
}

async fn a_request_that_is_none_of_the_handlers_claims_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    for body in ["{", "[]", r#"{"thing":"book"}"#] {
        let answer = exchange(server.address, &post("/ann/orders", &[b"\"k\""], body)).await;
        let answer = answer.expect("an answer");
        assert!(answer.status == 400 || answer.status == 422, "axum's own");
        assert_ne!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
    }
    assert_eq!(server.stored().await, (0, 0, 0));
    assert_eq!(server.order("k", "book").await.status, 201);
}
