//! Without its database a server says so and when to come back, and the key is free.

use effectively_tests::TestServer;
use sqlx::ConnectOptions;

use crate::client::{Answer, assert_problem, assert_retry_after, open, read};
use crate::server::{Server, request, slow};
use crate::shop::Shop;

on_every_server!(at once: a_database_that_another_writer_holds_is_unavailable);
on_every_server!(at once axum alone behind a network:
    a_database_that_is_silent_is_unavailable,
    a_database_that_is_lost_in_the_body_frees_the_key,
);

#[track_caller]
fn assert_unavailable(answer: &Answer) {
    assert_problem(answer, 503, "database_unavailable");
    assert_retry_after(answer);
}

async fn a_database_that_another_writer_holds_is_unavailable<DB: TestServer>(shop: Shop<DB>) {
    let options = shop.db.options(None);
    let mut writer = options.connect().await.expect("a connection");
    let begun = DB::execute(&mut writer, "begin immediate").await;
    begun.expect("the only turn to write");
    let (one, two) = tokio::join!(shop.server.order("k", "tea"), shop.server.order("l", "tea"));
    assert_unavailable(&one);
    assert_unavailable(&two);
    // Who only reads is not held up.
    assert_eq!(shop.server.get("/orders", Some("ann")).await.status, 200);
    let ended = DB::execute(&mut writer, "rollback").await;
    ended.expect("the end of it");
    assert_eq!(shop.stored().await, (0, 0, 0));
    assert_eq!(shop.server.order("k", "pot").await.kind(), (201, false));
}

async fn a_database_that_is_silent_is_unavailable<DB: TestServer>(shop: Shop<DB>) {
    let proxy = shop.db.proxy();
    let url = shop.db.options(Some(&proxy)).to_url_lossy();
    let server = Server::start(shop.program, url.as_str()).await;
    let first = server.order("before", "tea").await;
    assert_eq!(first.kind(), (201, false));
    proxy.black_hole(true);
    proxy.sever();
    let (order, replay, orders, events) = tokio::join!(
        server.order("k", "tea"),
        server.order("before", "tea"),
        server.get("/orders", Some("ann")),
        server.get("/events", None),
    );
    assert_unavailable(&order);
    // What this process remembers may be told without the database.
    assert!(
        replay.kind() == (201, true) || replay.status == 503,
        "{replay:?}"
    );
    for answer in [orders, events] {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_retry_after(&answer);
    }
    assert_eq!(server.get("/healthz", None).await.status, 200);
    proxy.black_hole(false);
    assert_eq!(server.order("k", "pot").await.kind(), (201, false));
    assert_eq!(shop.stored().await, (2, 2, 2));
}

async fn a_database_that_is_lost_in_the_body_frees_the_key<DB: TestServer>(shop: Shop<DB>) {
    let proxy = shop.db.proxy();
    let url = shop.db.options(Some(&proxy)).to_url_lossy();
    let server = Server::start(shop.program, url.as_str()).await;
    shop.until_idle().await;
    let lost = open(server.address, &request("k", &slow(700))).await;
    shop.until_in_a_body().await;
    proxy.sever();
    let lost = read(lost).await.expect("an answer");
    assert_eq!(lost.status, 503, "{lost:?}");
    assert_retry_after(&lost);
    shop.until_idle().await;
    assert_eq!(shop.stored().await, (0, 0, 0));
    assert_eq!(server.order("k", "pot").await.kind(), (201, false));
    assert_eq!(shop.stored().await, (1, 1, 1));
}
