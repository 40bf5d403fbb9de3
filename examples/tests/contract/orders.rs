//! What is an order and what is none; and what can be read about them.

use effectively_tests::TestServer;
use serde_json::json;

use crate::client::{exchange, get, post};
use crate::server::{request, two_of};
use crate::shop::Shop;

on_every_server!(
    a_body_that_is_no_order_is_refused_and_leaves_the_key_free,
    a_body_over_the_limit_is_refused_and_leaves_the_key_free,
    the_smallest_and_the_largest_order_are_taken,
    a_server_says_that_it_is_well,
);
on_every_server!(and every database: orders_and_events_are_read_oldest_first);
on_every_server!(axum alone on every database: an_item_keeps_its_characters_whatever_the_database_is_set_to);

async fn a_body_that_is_no_order_is_refused_and_leaves_the_key_free<DB: TestServer>(
    shop: Shop<DB>,
) {
    let refused = [
        "",
        "{",
        "null",
        "[]",
        "42",
        r#"{"item":"tea"}"#,
        r#"{"quantity":2}"#,
        r#"{"item":7,"quantity":2}"#,
        r#"{"item":null,"quantity":2}"#,
        r#"{"item":"tea","quantity":"2"}"#,
        r#"{"item":"tea","quantity":2.5}"#,
        r#"{"item":"tea","quantity":-1}"#,
        r#"{"item":"tea","quantity":0}"#,
        r#"{"item":"tea","quantity":1001}"#,
        r#"{"item":"tea","quantity":70000}"#,
        r#"{"item":"tea","quantity":2,"quantity":2}"#,
        r#"{"item":"te\u0000a","quantity":2}"#,
        r#"{"item":"tea","quantity":2,"delay_ms":10001}"#,
        r#"{"item":"tea","quantity":2,"delay_ms":-1}"#,
        r#"{"item":"tea","quantity":2,"fail":"otherwise"}"#,
        r#"{"item":"tea","quantity":2} and more"#,
    ];
    for body in refused {
        let answer = shop.server.ask("k", body).await;
        assert!(matches!(answer.status, 400 | 422), "{body}: {answer:?}");
        assert!(!answer.is_replay());
    }
    assert_eq!(shop.stored().await, (0, 0, 0));
    assert_eq!(shop.server.order("k", "tea").await.kind(), (201, false));
}

async fn a_body_over_the_limit_is_refused_and_leaves_the_key_free<DB: TestServer>(shop: Shop<DB>) {
    let large = request("k", &two_of(&"x".repeat(3 << 20)));
    // A server that does not read it to the end may cut the connection before its answer is seen.
    if let Some(answer) = exchange(shop.server.address, &large).await {
        assert!(matches!(answer.status, 400 | 413), "{answer:?}");
    }
    assert_eq!(shop.stored().await, (0, 0, 0));
    assert_eq!(shop.server.order("k", "tea").await.kind(), (201, false));
}

async fn the_smallest_and_the_largest_order_are_taken<DB: TestServer>(shop: Shop<DB>) {
    for (key, item, quantity) in [("a", "", 1), ("b", "teapot \u{1fad6} \"'\\", 1000)] {
        let order = json!({ "item": item, "quantity": quantity, "delay_ms": 0 }).to_string();
        let answer = shop.server.ask(key, &order).await;
        assert_eq!(answer.kind(), (201, false));
        let receipt = answer.json();
        assert_eq!(
            (&receipt["item"], &receipt["quantity"]),
            (&item.into(), &quantity.into())
        );
    }
}

async fn an_item_keeps_its_characters_whatever_the_database_is_set_to<DB: TestServer>(
    shop: Shop<DB>,
) {
    if DB::NAME == "MySQL" {
        shop.db.execute("alter database character set latin1").await;
        shop.db.execute("drop table orders").await;
    }
    // The one that makes the table.
    let server = shop.another().await;
    for (key, item) in ["teapot \u{1fad6}", "茶", "čaj \"'\\"].iter().enumerate() {
        let order = json!({ "item": item, "quantity": 1 }).to_string();
        let answer = server.ask(&key.to_string(), &order).await;
        assert_eq!(answer.kind(), (201, false), "{answer:?}");
    }
    let listed = server.get("/orders", Some("ann")).await.json();
    let items: Vec<_> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|order| &order["item"])
        .collect();
    assert_eq!(items, ["teapot \u{1fad6}", "茶", "čaj \"'\\"]);
}

async fn a_server_says_that_it_is_well<DB: TestServer>(shop: Shop<DB>) {
    assert_eq!(shop.server.get("/healthz", None).await.status, 200);
}

async fn orders_and_events_are_read_oldest_first<DB: TestServer>(shop: Shop<DB>) {
    let mut placed = Vec::new();
    for (user, key, item) in [
        ("ann", "1", "tea"),
        ("bob", "1", "pot"),
        ("ann", "2", "cup"),
    ] {
        let request = post(Some(user), &[key.as_bytes()], &two_of(item));
        placed.push((user, shop.server.send(&request).await.json()));
        assert!(shop.server.send(&request).await.is_replay());
    }
    for reader in ["ann", "bob", "carl"] {
        let answer = shop.server.send(&get("/orders", Some(reader), &[])).await;
        assert_eq!(
            (answer.status, answer.media_type()),
            (200, Some("application/json"))
        );
        let own = placed.iter().filter(|(user, _)| *user == reader);
        let own: Vec<_> = own.map(|(_, receipt)| receipt.clone()).collect();
        assert_eq!(answer.json(), json!(own));
    }
    let answer = shop.server.get("/events", None).await;
    assert_eq!(
        (answer.status, answer.media_type()),
        (200, Some("application/json"))
    );
    let events = answer.json();
    let events = events.as_array().expect("a list");
    assert_eq!(events.len(), placed.len());
    for (event, (_, receipt)) in events.iter().zip(&placed) {
        let id = event["id"].as_str().expect("a text");
        let expected = json!({
            "id": id,
            "topic": "orders",
            "type": "order.placed",
            "key": receipt["order_id"].to_string(),
            "data": receipt,
        });
        assert_eq!((event, id.len()), (&expected, 36));
    }
}
