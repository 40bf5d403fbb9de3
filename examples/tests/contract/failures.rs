//! An order that goes wrong leaves nothing; whether its key is free or used up is told by the answer.

use effectively_tests::TestServer;

use crate::client::{assert_error, assert_problem, assert_replayed};
use crate::server::failing;
use crate::shop::Shop;

on_every_server!(and every database:
    an_error_is_rolled_back_and_frees_the_key,
    a_refusal_is_recorded_and_replayed_without_an_order,
    a_panic_is_an_answer_and_frees_the_key,
);

/// Other content is taken: nothing is left of the key.
async fn assert_free<DB: TestServer>(shop: &Shop<DB>) {
    assert_eq!(shop.stored().await, (0, 0, 0));
    assert_eq!(shop.server.order("k", "pot").await.kind(), (201, false));
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn an_error_is_rolled_back_and_frees_the_key<DB: TestServer>(shop: Shop<DB>) {
    for _ in 0..2 {
        let answer = shop.server.ask("k", &failing("error")).await;
        assert_error(&answer, 500, "order_failed");
        assert!(!answer.is_replay());
    }
    assert_free(&shop).await;
}

async fn a_refusal_is_recorded_and_replayed_without_an_order<DB: TestServer>(shop: Shop<DB>) {
    let first = shop.server.ask("k", &failing("reject")).await;
    assert_error(&first, 402, "payment_required");
    for _ in 0..2 {
        let again = shop.server.ask("k", &failing("reject")).await;
        assert_replayed(&first, &again);
    }
    assert_eq!(shop.stored().await, (0, 0, 1));
    let other = shop.server.order("k", "tea").await;
    assert_problem(&other, 422, "idempotency_key_mismatch");
    let listed = shop.server.get("/orders", Some("ann")).await;
    assert_eq!(listed.json(), serde_json::json!([]));
}

async fn a_panic_is_an_answer_and_frees_the_key<DB: TestServer>(shop: Shop<DB>) {
    for _ in 0..2 {
        let answer = shop.server.ask("k", &failing("panic")).await;
        assert_problem(&answer, 500, "handler_panicked");
    }
    assert_free(&shop).await;
}
