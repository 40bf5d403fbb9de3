//! No error of the toolkit shows a key, a payload, or the inside of the server.

use std::time::Duration;

use effectively::Ledger;
use effectively_tests::{TestDb, on_every_database};
use sqlx::pool::PoolOptions;

use crate::app::{Server, ShopDb};
use crate::client::{Answer, exchange, open, post, read};

const KEY: &str = "kEy-4711";

on_every_database!(
    no_error_shows_the_key_or_the_payload,
    missing_tables_are_a_server_error_that_tells_nothing
);

#[track_caller]
fn assert_silent(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    let text = answer.text().to_lowercase();
    for word in [
        "4711", "pay-0815", "slow", "select", "insert", "src/", "ann/",
    ] {
        assert!(!text.contains(word), "{word} in {text}");
    }
}

async fn no_error_shows_the_key_or_the_payload<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    let send = async |key: &[u8], body: &str| {
        let answer = exchange(server.address, &post("/ann/orders", &[key], body)).await;
        answer.expect("an answer")
    };
    let (quoted, body) = (format!("\"{KEY}\""), r#"{"item":"pay-0815"}"#);
    assert_silent(&send(KEY.as_bytes(), body).await, 400);
    let long = format!("\"{}\"", KEY.repeat(40));
    assert_silent(&send(long.as_bytes(), body).await, 400);

    let first = send(quoted.as_bytes(), r#"{"item":"book"}"#).await;
    assert_eq!(first.status, 201);
    assert_silent(&send(quoted.as_bytes(), body).await, 422);

    let slow_key = format!("\"slow-{KEY}\"");
    let slow = post("/ann/orders", &[slow_key.as_bytes()], r#"{"item":"slow"}"#);
    let running = open(server.address, &slow).await;
    server.hand.entered().await;
    let in_flight = exchange(server.address, &slow).await;
    assert_silent(&in_flight.expect("an answer"), 409);
    server.hand.let_go();
    assert_eq!(read(running).await.expect("an answer").status, 201);

    let lost = server.order(KEY.to_lowercase().as_str(), "rollback").await;
    assert_silent(&lost, 500);
    server.ledger.pool().close().await;
    assert_silent(&send(quoted.as_bytes(), body).await, 503);
}

async fn missing_tables_are_a_server_error_that_tells_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let pool = PoolOptions::new().acquire_timeout(Duration::from_secs(10));
    let ledger = Ledger::new(db.pool_from(pool, None));
    let server = Server::on(db, ledger).await;
    let answer = server.order(KEY, "pay-0815").await;
    assert_silent(&answer, 500);
    assert_eq!(answer.json()["code"], "tables_missing");
    let detail = answer.json()["detail"].as_str().expect("a text").to_owned();
    assert!(!detail.contains("table"), "{detail}");
    assert_eq!(server.hand.runs(), 0);
}
