//! The assertions, the same for every framework.

use crate::client::{Answer, assert_problem};
use crate::shop::{BODY, Shop};

/// The table of the frameworks. Makes `name::actix`, `name::poem` and `name::salvo` from `async fn name(shop: Shop)`.
macro_rules! on_every_framework {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            on_every_framework!(each $test: actix poem salvo);
        }
    )+};
    (each $test:ident: $($framework:ident)+) => {$(
        #[tokio::test]
        async fn $framework() {
            super::$test(crate::shop::Shop::open(crate::$framework::start).await).await;
        }
    )+};
}

on_every_framework!(
    a_whole_response_is_replayed_with_the_headers_it_may_keep,
    no_content_type_is_added_to_a_response_without_one,
    a_status_with_headers_and_json_is_replayed,
    a_status_with_json_is_replayed,
    a_status_alone_is_an_empty_answer,
    a_unit_is_an_empty_200,
    a_stream_is_refused_at_once_and_the_key_is_free,
    a_response_over_the_limit_is_refused_and_the_key_is_free,
    a_response_that_asks_for_a_retry_is_not_recorded,
    a_404_is_recorded_and_commits,
    the_whole_request_is_compared_but_for_what_is_excluded,
    a_request_that_cannot_be_read_leaves_the_key_free,
);

fn values<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let named = answer.headers.iter().filter(|(found, _)| found == name);
    named.map(|(_, value)| value.as_str()).collect()
}

async fn a_whole_response_is_replayed_with_the_headers_it_may_keep(shop: Shop) {
    let [first, again] = shop.post_twice("/ann/whole/headers").await;
    for answer in [&first, &again] {
        assert_eq!((answer.status, &*answer.body), (203, BODY));
        assert_eq!(values(answer, "x-many"), ["1", "2, 3", "\u{FFFD}"]);
        assert_eq!(answer.header("content-type"), Some("image/png"));
        assert_eq!(answer.header("x-hop"), None, "named by `Connection`");
        assert_ne!(answer.header("date"), Some("yesterday"));
    }
    assert_eq!(values(&first, "set-cookie"), ["a=1", "b=2"]);
    assert_eq!(values(&again, "set-cookie"), [""; 0]);
    assert_eq!(shop.stored().await, (1, 1));
}

async fn no_content_type_is_added_to_a_response_without_one(shop: Shop) {
    for (path, status, body) in [("text", 200, "plain"), ("empty", 204, "")] {
        for answer in shop.post_twice(&format!("/ann/whole/{path}")).await {
            assert_eq!((answer.status, &*answer.body), (status, body.as_bytes()));
            assert_eq!(answer.header("content-type"), None);
        }
    }
}

async fn a_status_with_headers_and_json_is_replayed(shop: Shop) {
    for answer in shop.post_twice("/ann/head").await {
        assert_eq!((answer.status, &*answer.body), (202, &b"[1,null]"[..]));
        assert_eq!(answer.header("content-type"), Some("application/x+json"));
        assert_eq!(answer.header("location"), Some("/orders/7"));
    }
}

async fn a_status_with_json_is_replayed(shop: Shop) {
    for answer in shop.post_twice("/ann/pair").await {
        assert_eq!((answer.status, &*answer.body), (201, &b"[1,null]"[..]));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}

/// 404, which a framework would like to fill with a page of its own.
async fn a_status_alone_is_an_empty_answer(shop: Shop) {
    for answer in shop.post_twice("/ann/bare").await {
        assert_eq!((answer.status, &*answer.body), (404, &b""[..]));
        assert_eq!(answer.header("content-type"), None);
    }
    assert_eq!(shop.stored().await, (1, 1));
}

async fn a_unit_is_an_empty_200(shop: Shop) {
    for answer in shop.post_twice("/ann/unit").await {
        assert_eq!((answer.status, &*answer.body), (200, &b""[..]));
        assert_eq!(answer.header("content-type"), None);
    }
    assert_eq!(shop.stored().await, (1, 1));
}

async fn a_stream_is_refused_at_once_and_the_key_is_free(shop: Shop) {
    for path in ["stream", "endless"] {
        for _ in 0..2 {
            let answer = shop.post(&format!("/ann/whole/{path}"), "").await;
            assert_problem(&answer, 500, "response_streaming");
        }
    }
    assert_eq!(shop.stored().await, (0, 0));
}

async fn a_response_over_the_limit_is_refused_and_the_key_is_free(shop: Shop) {
    for _ in 0..2 {
        let answer = shop.post("/ann/whole/large", "").await;
        assert_problem(&answer, 500, "outcome_too_large");
    }
    assert_eq!(shop.stored().await, (0, 0));
}

async fn a_response_that_asks_for_a_retry_is_not_recorded(shop: Shop) {
    for status in [503, 500, 429, 408, 425] {
        let mut runs = Vec::new();
        for _ in 0..2 {
            let answer = shop.post(&format!("/ann/whole/{status}"), "").await;
            assert_eq!((answer.status, answer.is_replay()), (status, false));
            assert!(answer.body.starts_with(b"run "), "{answer:?}");
            runs.push(answer.body);
        }
        assert_ne!(runs[0], runs[1]);
    }
    assert_eq!(shop.stored().await, (0, 0));
}

async fn a_404_is_recorded_and_commits(shop: Shop) {
    let [first, again] = shop.post_twice("/ann/whole/404").await;
    assert_eq!((first.status, again.status), (404, 404));
    assert!(first.body.starts_with(b"run "), "{first:?}");
    assert_eq!(first.body, again.body);
    assert_eq!(shop.stored().await, (1, 1), "a final status commits");
}

async fn the_whole_request_is_compared_but_for_what_is_excluded(shop: Shop) {
    let sent = r#"{"item":"tea","sent_at":1}"#;
    let first = shop.post("/ann/same?a=1", sent).await;
    assert_eq!((first.status, &*first.body), (200, &br#""tea""#[..]));
    let later = r#"{ "sent_at":2, "item":"tea" }"#;
    let again = shop.post("/ann/same?a=1", later).await;
    assert!(!first.is_replay() && again.is_replay(), "{again:?}");
    assert_eq!(again.body, first.body);
    for (path, body) in [
        ("/ann/same?a=2", sent),
        ("/ann/same", sent),
        ("/ann/same?a=1", r#"{"item":"tea","note":1}"#),
    ] {
        let other = shop.post(path, body).await;
        assert_problem(&other, 422, "idempotency_key_mismatch");
    }
    assert_eq!(shop.stored().await, (1, 1));
}

async fn a_request_that_cannot_be_read_leaves_the_key_free(shop: Shop) {
    assert_eq!(shop.post("/ann/same", "{").await.status, 400);
    let large = format!(r#"{{"item":"{}"}}"#, "x".repeat(3 << 20));
    assert_eq!(shop.post("/ann/same", &large).await.status, 413);
    assert_eq!(shop.stored().await, (0, 0));
    let good = shop.post("/ann/same", r#"{"item":"tea"}"#).await;
    assert_eq!((good.status, good.is_replay()), (200, false));
    assert_eq!(shop.stored().await, (1, 1));
}
