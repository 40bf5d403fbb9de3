//! A client that hangs up and comes back gets the right answer, there is one effect, and no other request notices.

use std::thread;
use std::time::Duration;

use effectively_tests::TestServer;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client::{exchange, open, reset};
use crate::server::{request, slow, two_of};
use crate::shop::Shop;

on_every_server!(
    a_client_that_hangs_up_within_its_request_has_claimed_nothing,
    a_client_that_hangs_up_right_after_its_request_is_served_once,
);
on_every_server!(and every database:
    a_client_that_hangs_up_in_the_body_gets_its_answer_with_the_retry,
    hang_ups_cost_nobody_else_an_order,
    a_client_that_hangs_up_at_any_moment_of_its_call_is_served_once,
);

/// The two ways in which a connection can end.
const WAYS: [fn(TcpStream); 2] = [drop, reset];

async fn a_client_that_hangs_up_within_its_request_has_claimed_nothing<DB: TestServer>(
    shop: Shop<DB>,
) {
    for (number, hang_up) in WAYS.into_iter().enumerate() {
        let request = request(&format!("{number}"), &two_of("tea"));
        let body = two_of("tea").len();
        // In the head, before the body, in the body, before its last byte.
        for sent in [
            request.len() / 2,
            request.len() - body,
            request.len() - body / 2,
            request.len() - 1,
        ] {
            hang_up(open(shop.server.address, &request[..sent]).await);
        }
        let retry = shop.server.order(&format!("{number}"), "tea").await;
        assert_eq!(
            retry.kind(),
            (201, false),
            "none of the halves was an order"
        );
    }
    shop.until_idle().await;
    assert_eq!(shop.stored().await, (2, 2, 2));
}

async fn a_client_that_hangs_up_right_after_its_request_is_served_once<DB: TestServer>(
    shop: Shop<DB>,
) {
    for number in 0..20_u32 {
        let key = number.to_string();
        let request = request(&key, &two_of("tea"));
        WAYS[number as usize % 2](open(shop.server.address, &request).await);
        let retry = shop.server.order(&key, "tea").await;
        assert_eq!(retry.status, 201);
        let again = shop.server.order(&key, "tea").await;
        assert_eq!((again.kind(), &again.body), ((201, true), &retry.body));
    }
    shop.until_idle().await;
    assert_eq!(shop.stored().await, (20, 20, 20));
}

async fn a_client_that_hangs_up_in_the_body_gets_its_answer_with_the_retry<DB: TestServer>(
    shop: Shop<DB>,
) {
    for (number, hang_up) in WAYS.into_iter().enumerate() {
        let key = number.to_string();
        let client = open(shop.server.address, &request(&key, &slow(300))).await;
        shop.until_in_a_body().await;
        hang_up(client);
        // The body has not been stopped: nothing is run a second time.
        let retry = shop.server.ask(&key, &slow(300)).await;
        assert_eq!(retry.kind(), (201, true));
        shop.until_idle().await;
    }
    assert_eq!(shop.stored().await, (2, 2, 2));
}

/// Before the claim, in the body, while committing, after it: the moment moves through all of the call.
async fn a_client_that_hangs_up_at_any_moment_of_its_call_is_served_once<DB: TestServer>(
    shop: Shop<DB>,
) {
    let mut replays = 0;
    for number in 0..60_u32 {
        let key = number.to_string();
        let client = open(shop.server.address, &request(&key, &slow(2))).await;
        // The server is another process; a timer of tokio is too coarse for this.
        thread::sleep(number * Duration::from_micros(150));
        WAYS[number as usize % 2](client);
        let retry = shop.server.ask(&key, &slow(2)).await;
        assert_eq!(retry.status, 201);
        replays += usize::from(retry.is_replay());
        let again = shop.server.ask(&key, &slow(2)).await;
        assert_eq!((again.kind(), &again.body), ((201, true), &retry.body));
    }
    assert!(
        replays > 20,
        "only {replays} calls were over when the retry came"
    );
    shop.until_idle().await;
    assert_eq!(shop.stored().await, (60, 60, 60));
}

async fn hang_ups_cost_nobody_else_an_order<DB: TestServer>(shop: Shop<DB>) {
    let mut others = JoinSet::new();
    for number in 0..8_u32 {
        let address = shop.server.address;
        others.spawn(async move {
            let mut placed = Vec::new();
            for round in 0..5 {
                let request = request(&format!("other {number} {round}"), &two_of("pot"));
                let answer = exchange(address, &request).await.expect("an answer");
                assert_eq!(answer.kind(), (201, false));
                placed.push(answer.json()["order_id"].as_i64().expect("a number"));
            }
            placed
        });
    }
    for number in 0..20_u32 {
        let request = request(&format!("hung up {number}"), &slow(number));
        WAYS[number as usize % 2](open(shop.server.address, &request).await);
    }
    let mut placed: Vec<_> = others.join_all().await.into_iter().flatten().collect();
    for number in 0..20_u32 {
        let retry = shop
            .server
            .ask(&format!("hung up {number}"), &slow(number))
            .await;
        assert_eq!(retry.status, 201);
        placed.push(retry.json()["order_id"].as_i64().expect("a number"));
    }
    placed.sort_unstable();
    let listed = shop.server.get("/orders", Some("ann")).await.json();
    let listed = listed.as_array().expect("a list").iter();
    let listed: Vec<_> = listed.map(|order| order["order_id"].as_i64()).collect();
    assert_eq!(listed, placed.into_iter().map(Some).collect::<Vec<_>>());
    assert_eq!(shop.stored().await, (60, 60, 60));
}
