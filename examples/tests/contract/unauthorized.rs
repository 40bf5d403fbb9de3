//! Who calls is asked before anything else.

use effectively_tests::TestServer;

use crate::client::{assert_error, get, post};
use crate::server::two_of;
use crate::shop::Shop;

on_every_server!(
    without_a_user_the_answer_is_401_whatever_the_rest_is,
    without_a_user_there_is_no_replay_either,
);

async fn without_a_user_the_answer_is_401_whatever_the_rest_is<DB: TestServer>(shop: Shop<DB>) {
    let keys: [&[&[u8]]; 5] = [
        &[],
        &[b"\"k\""],
        &[b""],
        &[b"\"a\", \"b\""],
        &[b"\"a\"", b"\"a\""],
    ];
    for user in [None, Some(""), Some(" ")] {
        for keys in keys {
            for body in [&*two_of("tea"), "{", "", r#"{"item":"tea","quantity":0}"#] {
                let answer = shop.server.send(&post(user, keys, body)).await;
                assert_error(&answer, 401, "unauthorized");
            }
        }
        let answer = shop.server.send(&get("/orders", user, &[])).await;
        assert_error(&answer, 401, "unauthorized");
    }
    assert_eq!(shop.stored().await, (0, 0, 0));
}

async fn without_a_user_there_is_no_replay_either<DB: TestServer>(shop: Shop<DB>) {
    let first = shop.server.order("k", "tea").await;
    assert_eq!(first.kind(), (201, false));
    let answer = shop
        .server
        .send(&post(None, &[b"\"k\""], &two_of("tea")))
        .await;
    assert_error(&answer, 401, "unauthorized");
    assert!(!answer.is_replay());
}
