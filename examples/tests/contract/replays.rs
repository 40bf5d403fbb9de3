//! A repetition gets the first answer, byte for byte, and is told that it is one.

use std::collections::BTreeSet;

use effectively_tests::TestServer;
use serde_json::json;
use tokio::task::JoinSet;

use crate::client::{assert_problem, assert_replayed, exchange, post, post_in_chunks};
use crate::server::{request, two_of};
use crate::shop::Shop;

on_every_server!(
    the_order_of_fields_and_white_space_do_not_matter,
    the_length_of_a_body_may_be_known_or_not,
    a_server_that_was_started_again_replays,
);
on_every_server!(and every database:
    a_repetition_gets_the_first_answer,
    another_payload_with_the_same_key_is_refused,
    the_same_key_of_another_user_is_another_order,
    the_same_payload_with_another_key_is_another_order,
    fifty_requests_at_once_with_one_key_are_one_order,
);

async fn a_repetition_gets_the_first_answer<DB: TestServer>(shop: Shop<DB>) {
    let first = shop.server.order("k", "tea").await;
    assert_eq!(first.kind(), (201, false));
    assert_eq!(first.media_type(), Some("application/json"));
    let receipt = first.json();
    let id = receipt["order_id"].as_i64().expect("a number");
    assert_eq!(
        receipt,
        json!({ "order_id": id, "item": "tea", "quantity": 2 })
    );
    assert_eq!(first.header("location"), Some(&*format!("/orders/{id}")));
    for _ in 0..3 {
        assert_replayed(&first, &shop.server.order("k", "tea").await);
    }
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn the_order_of_fields_and_white_space_do_not_matter<DB: TestServer>(shop: Shop<DB>) {
    let first = shop.server.order("k", "tea").await;
    for same in [
        r#"{"quantity":2,"item":"tea"}"#,
        "\n{ \"item\" :\t\"tea\" , \"quantity\" : 2 }\n",
        r#"{"item":"\u0074ea","quantity":2}"#,
        r#"{"item":"tea","quantity":2,"delay_ms":0,"fail":null}"#,
        r#"{"item":"tea","quantity":2,"unknown":1}"#,
    ] {
        assert_replayed(&first, &shop.server.ask("k", same).await);
    }
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn the_length_of_a_body_may_be_known_or_not<DB: TestServer>(shop: Shop<DB>) {
    let chunked = post_in_chunks("ann", b"\"k\"", &two_of("tea"));
    let first = shop.server.send(&chunked).await;
    assert_eq!(first.kind(), (201, false));
    assert_replayed(&first, &shop.server.order("k", "tea").await);
    assert_replayed(&first, &shop.server.send(&chunked).await);
}

async fn a_server_that_was_started_again_replays<DB: TestServer>(mut shop: Shop<DB>) {
    let first = shop.server.order("k", "tea").await;
    shop.server.kill();
    shop.server = shop.another().await;
    assert_replayed(&first, &shop.server.order("k", "tea").await);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn another_payload_with_the_same_key_is_refused<DB: TestServer>(shop: Shop<DB>) {
    let first = shop.server.order("k", "tea").await;
    for other in [
        two_of("pot"),
        r#"{"item":"tea","quantity":3}"#.into(),
        r#"{"item":"tea","quantity":2,"delay_ms":1}"#.into(),
        r#"{"item":"tea","quantity":2,"fail":"reject"}"#.into(),
    ] {
        // As often as it is tried.
        for _ in 0..2 {
            let refused = shop.server.ask("k", &other).await;
            assert_problem(&refused, 422, "idempotency_key_mismatch");
            assert_eq!(refused.header("retry-after"), None);
        }
    }
    assert_replayed(&first, &shop.server.order("k", "tea").await);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn the_same_key_of_another_user_is_another_order<DB: TestServer>(shop: Shop<DB>) {
    let ann = shop.server.order("k", "tea").await;
    let request = post(Some("bob"), &[b"\"k\""], &two_of("tea"));
    let bob = shop.server.send(&request).await;
    assert_eq!(bob.kind(), (201, false));
    assert_ne!(ann.body, bob.body);
    assert_replayed(&bob, &shop.server.send(&request).await);
    assert_replayed(&ann, &shop.server.order("k", "tea").await);
    assert_eq!(shop.stored().await, (2, 2, 2));
}

async fn the_same_payload_with_another_key_is_another_order<DB: TestServer>(shop: Shop<DB>) {
    let first = shop.server.order("k", "tea").await;
    let other = shop.server.order("l", "tea").await;
    assert_eq!(other.kind(), (201, false));
    assert_ne!(first.body, other.body);
    assert_eq!(shop.stored().await, (2, 2, 2));
}

async fn fifty_requests_at_once_with_one_key_are_one_order<DB: TestServer>(shop: Shop<DB>) {
    let mut requests = JoinSet::new();
    for _ in 0..50 {
        let address = shop.server.address;
        requests.spawn(async move {
            let answer = exchange(address, &request("k", &two_of("tea"))).await;
            answer.expect("an answer")
        });
    }
    let answers = requests.join_all().await;
    assert!(
        answers.iter().all(|answer| answer.status == 201),
        "{answers:?}"
    );
    let bodies: BTreeSet<_> = answers.iter().map(|answer| &answer.body).collect();
    assert_eq!(bodies.len(), 1, "equal bytes");
    let (again, first): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.is_replay());
    assert_eq!(first.len(), 1);
    again
        .iter()
        .for_each(|again| assert_replayed(first[0], again));
    assert_eq!(shop.stored().await, (1, 1, 1));
}
