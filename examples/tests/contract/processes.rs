//! Several processes on one database are one server to their clients; and a process ends when it is told to, not before.

use effectively_tests::TestServer;
use tokio::net::TcpStream;

use crate::client::{assert_problem, assert_replayed, assert_retry_after, open, read};
use crate::server::{request, slow};
use crate::shop::Shop;

on_every_server!(and every database: a_duplicate_at_another_process_is_replayed);
on_every_server!(at once axum alone behind a network: a_duplicate_at_another_process_is_told_to_come_back);
on_every_server!(at once and every database:
    a_duplicate_at_another_process_waits_for_the_first,
    a_duplicate_takes_over_when_the_first_process_is_killed,
    a_request_in_flight_is_answered_before_a_process_ends,
);

async fn a_duplicate_at_another_process_is_replayed<DB: TestServer>(shop: Shop<DB>) {
    let other = shop.another().await;
    let first = shop.server.order("k", "tea").await;
    assert_eq!(first.kind(), (201, false));
    assert_replayed(&first, &other.order("k", "tea").await);
    let refused = other.order("k", "pot").await;
    assert_problem(&refused, 422, "idempotency_key_mismatch");
    assert_eq!(shop.stored().await, (1, 1, 1));
    let listed = other.get("/orders", Some("ann")).await.json();
    assert_eq!(listed, serde_json::json!([first.json()]));
}

async fn a_duplicate_at_another_process_waits_for_the_first<DB: TestServer>(shop: Shop<DB>) {
    let other = shop.another().await;
    shop.until_idle().await;
    let first = open(shop.server.address, &request("k", &slow(500))).await;
    shop.until_in_a_body().await;
    let repeat = other.ask("k", &slow(500)).await;
    let first = read(first).await.expect("an answer");
    assert_eq!(first.kind(), (201, false));
    assert_replayed(&first, &repeat);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

/// Not on SQLite: there the other process waits for the turn to write, with the bound of the database.
async fn a_duplicate_at_another_process_is_told_to_come_back<DB: TestServer>(shop: Shop<DB>) {
    let other = shop.another().await;
    shop.until_idle().await;
    let first = open(shop.server.address, &request("k", &slow(4000))).await;
    shop.until_in_a_body().await;
    let repeat = other.ask("k", &slow(4000)).await;
    assert_problem(&repeat, 409, "idempotency_key_in_flight");
    assert_retry_after(&repeat);
    let first = read(first).await.expect("an answer");
    assert_replayed(&first, &other.ask("k", &slow(4000)).await);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn a_duplicate_takes_over_when_the_first_process_is_killed<DB: TestServer>(
    mut shop: Shop<DB>,
) {
    let other = shop.another().await;
    shop.until_idle().await;
    let first = open(shop.server.address, &request("k", &slow(900))).await;
    shop.until_in_a_body().await;
    let repeat = open(other.address, &request("k", &slow(900))).await;
    shop.server.kill();
    assert!(read(first).await.is_none());
    let repeat = read(repeat).await.expect("an answer");
    assert_eq!(repeat.kind(), (201, false));
    assert_replayed(&repeat, &other.ask("k", &slow(900)).await);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn a_request_in_flight_is_answered_before_a_process_ends<DB: TestServer>(mut shop: Shop<DB>) {
    let first = open(shop.server.address, &request("k", &slow(700))).await;
    shop.until_in_a_body().await;
    shop.server.terminate();
    let first = read(first).await.expect("an answer");
    assert_eq!(first.kind(), (201, false));
    assert_eq!(shop.server.exit().await.code(), Some(0));
    assert!(TcpStream::connect(shop.server.address).await.is_err());
    let next = shop.another().await;
    assert_replayed(&first, &next.ask("k", &slow(700)).await);
    assert_eq!(shop.stored().await, (1, 1, 1));
}
