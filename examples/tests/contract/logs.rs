//! A server's log holds no key, no payload and no token.

use effectively_tests::TestServer;

use crate::client::{exchange, get, open, post, read};
use crate::shop::Shop;

on_every_server!(at once and every database: nothing_of_a_request_is_logged);

const USER: &str = "token-of-ann-7f3a";
const KEY: &str = "key-of-ann-91bc";
const ITEM: &str = "item-of-ann-c2d4";

async fn nothing_of_a_request_is_logged<DB: TestServer>(shop: Shop<DB>) {
    // The second one: on Postgres it logs that the tables are there already.
    let mut server = shop.another().await;
    let address = server.address;
    shop.until_idle().await;
    let ask = async |key: &str, rest: &str| {
        let body = format!(r#"{{"item":"{ITEM}","quantity":2{rest}}}"#);
        let answer = exchange(address, &post(Some(USER), &[key.as_bytes()], &body)).await;
        answer.expect("an answer").status
    };
    // Slow enough for what warns of slow statements, and a duplicate waits as long.
    let slow = r#","delay_ms":1300"#;
    let body = format!(r#"{{"item":"{ITEM}","quantity":2{slow}}}"#);
    let key = format!("\"{KEY}\"");
    let first = open(address, &post(Some(USER), &[key.as_bytes()], &body)).await;
    shop.until_in_a_body().await;
    let mut statuses = vec![
        ask(&key, slow).await,
        ask(&key, "").await,
        ask(&format!("{KEY}\""), "").await,
        ask(&format!("{KEY},{KEY}"), "").await,
        ask(&format!("\"{KEY}\u{e9}\""), "").await,
        ask(&format!("{KEY}-1"), r#","fail":"error""#).await,
        ask(&format!("{KEY}-2"), r#","fail":"reject""#).await,
        ask(&format!("{KEY}-2"), r#","fail":"reject""#).await,
        ask(&format!("{KEY}-3"), r#","fail":"panic""#).await,
        ask(&format!("{KEY}-4"), r#","delay_ms":99999"#).await,
        ask(&format!("{KEY}-4"), " and more").await,
    ];
    statuses.push(read(first).await.expect("an answer").status);
    for status in &mut statuses {
        // What is no order is 400 or 422, as the framework has it.
        *status = if *status == 422 { 400 } else { *status };
    }
    assert_eq!(
        statuses,
        [201, 400, 400, 400, 400, 500, 402, 402, 500, 400, 400, 201]
    );
    for path in ["/orders", "/events", "/nowhere"] {
        exchange(address, &get(path, Some(USER), &[key.as_bytes()]))
            .await
            .expect("an answer");
    }
    server.terminate();
    assert!(server.exit().await.success());
    let log = server.log();
    // This is where panics and the log go. On the other two databases axum has nothing to say.
    assert!(log.contains("the order was told to"), "{log}");
    let is_talkative = DB::NAME == "PostgreSQL" || !shop.program.ends_with("axum_orders");
    assert!(!is_talkative || log.contains(" INFO "), "{log}");
    for secret in [USER, KEY, ITEM] {
        assert!(!log.contains(secret), "{secret} in\n{log}");
    }
}
