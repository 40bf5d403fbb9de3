//! An application with a contract of its own. It is one per process, so it has a suite, and one test, to itself.

// A test that cannot go on says why and stops: here that is the right thing to do. And not all of the shop is needed.
#![allow(clippy::expect_used, dead_code)]

#[path = "axum_http/app.rs"]
mod app;
#[path = "axum_http/client.rs"]
mod client;
#[path = "axum_http/hand.rs"]
mod hand;

use app::Server;
use client::{Answer, exchange, post};
use effectively::{ErrorKind, web::Contract};
use effectively_tests::TestDb;
use sqlx::Sqlite;

#[tokio::test]
async fn statuses_marker_page_and_lenient_keys_are_the_applications_choice() {
    Contract::default()
        .lenient_keys(true)
        .status("idempotency_key_missing", 428)
        .status("idempotency_key_mismatch", 409)
        .replay_marker("X-Again")
        .documentation("https://shop.example/retries")
        .install()
        .expect("a contract");
    let server = Server::start(TestDb::<Sqlite>::new().await).await;
    let send = async |keys: &[&[u8]], item: &str| -> Answer {
        let body = format!(r#"{{"item":"{item}"}}"#);
        let answer = exchange(server.address, &post("/ann/orders", keys, &body)).await;
        answer.expect("an answer")
    };

    let first = send(&[b"abc"], "tea").await;
    assert_eq!((first.status, first.header("x-again")), (201, None));
    let again = send(&[b"\"abc\""], "tea").await;
    assert_eq!((again.status, again.header("x-again")), (201, Some("true")));
    assert_eq!((again.is_replay(), &again.body), (false, &first.body));

    let missing = send(&[], "tea").await;
    assert_eq!(missing.status, 428);
    assert_eq!(missing.json()["status"], 428);
    let page = "https://shop.example/retries#idempotency_key_missing";
    assert_eq!(missing.json()["type"], page);
    assert!(missing.header("link").expect("a link").contains(page));
    assert_eq!(send(&[b"abc"], "milk").await.status, 409);
    assert_eq!(send(&[b"a b"], "tea").await.status, 400);

    let late = Contract::default().install().expect_err("too late");
    assert!(matches!(late.kind(), ErrorKind::Settings(_)));
}
