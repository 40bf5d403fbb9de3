//! What a handler may return: each comes back as it went, or is refused before anything is committed.

use effectively_tests::{TestDb, on_every_database};

use crate::app::{Server, ShopDb};
use crate::client::{Answer, assert_problem, exchange, post};

on_every_database!(
    a_whole_response_is_replayed_with_the_headers_it_may_keep,
    a_status_with_headers_and_json_is_replayed,
    a_unit_is_an_empty_200,
    a_stream_is_refused_and_the_key_is_free,
    json_that_does_not_bring_its_value_back_is_refused_and_the_key_is_free,
    a_response_over_the_limit_is_refused_and_the_key_is_free,
    a_response_that_asks_for_a_retry_is_not_recorded,
    the_whole_request_is_compared_but_for_what_is_excluded,
);

async fn send<DB: ShopDb>(server: &Server<DB>, path: &str, body: &str) -> Answer {
    let request = post(path, &[b"\"k\""], body);
    exchange(server.address, &request).await.expect("an answer")
}

fn values<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let named = answer.headers.iter().filter(|(found, _)| found == name);
    named.map(|(_, value)| value.as_str()).collect()
}

async fn a_whole_response_is_replayed_with_the_headers_it_may_keep<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    let first = send(&server, "/ann/whole/headers", "").await;
    let again = send(&server, "/ann/whole/headers", "").await;
    for answer in [&first, &again] {
        assert_eq!((answer.status, &*answer.body), (203, &b"\x00\xFFbody"[..]));
        assert_eq!(values(answer, "x-many"), ["1", "2, 3", "\u{FFFD}"]);
        assert_eq!(answer.header("content-type"), Some("image/png"));
        assert_eq!(answer.header("x-hop"), None, "named by `Connection`");
    }
    assert!(!first.is_replay() && again.is_replay());
    assert_eq!(values(&first, "set-cookie"), ["a=1", "b=2"]);
    assert_eq!(values(&again, "set-cookie"), [""; 0]);
    assert_ne!(again.header("date"), Some("yesterday"));
    let empty = send(&server, "/ann/whole/empty", "").await;
    assert_eq!((empty.status, empty.body.len()), (204, 0));
    assert_eq!(empty.header("content-type"), None);
}

async fn a_status_with_headers_and_json_is_replayed<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    let first = send(&server, "/ann/head", "").await;
    let again = send(&server, "/ann/head", "").await;
    for answer in [&first, &again] {
        assert_eq!((answer.status, &*answer.body), (202, &b"[1,null]"[..]));
        assert_eq!(answer.header("content-type"), Some("application/x+json"));
        assert_eq!(answer.header("location"), Some("/orders/7"));
    }
    assert!(again.is_replay());
}

async fn a_unit_is_an_empty_200<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    for replay in [false, true] {
        let answer = send(&server, "/ann/unit", "").await;
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        assert_eq!(answer.is_replay(), replay);
    }
}

async fn a_stream_is_refused_and_the_key_is_free<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    for _ in 0..2 {
        let answer = send(&server, "/ann/whole/stream", "").await;
        assert_problem(&answer, 500, "response_streaming");
    }
    assert_eq!(server.stored().await, (0, 0, 0));
}

async fn json_that_does_not_bring_its_value_back_is_refused_and_the_key_is_free<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let server = Server::start(db).await;
    let answer = send(&server, "/ann/ratio", "0").await;
    assert_problem(&answer, 500, "encode_failed");
    assert_eq!(server.stored().await, (0, 0, 0));
    for replay in [false, true] {
        let answer = send(&server, "/ann/ratio", "4").await;
        assert_eq!((answer.status, &*answer.body), (201, &b"0.25"[..]));
        assert_eq!(answer.is_replay(), replay);
    }
}

async fn a_response_over_the_limit_is_refused_and_the_key_is_free<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    let answer = send(&server, "/ann/whole/large", "").await;
    assert_problem(&answer, 500, "outcome_too_large");
    assert_eq!(server.stored().await, (0, 0, 0));
}

async fn a_response_that_asks_for_a_retry_is_not_recorded<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    for path in ["503", "500", "429", "408", "425"] {
        for _ in 0..2 {
            let answer = send(&server, &format!("/ann/whole/{path}"), "").await;
            assert_eq!(
                (answer.status.to_string(), answer.is_replay()),
                (path.to_owned(), false)
            );
        }
    }
    assert_eq!(server.hand.runs(), 10);
    assert_eq!(server.stored().await, (0, 0, 0));
    send(&server, "/ann/whole/404", "").await;
    assert!(send(&server, "/ann/whole/404", "").await.is_replay());
    assert_eq!(
        server.stored().await,
        (1, 0, 1),
        "an `Ok` with a final status commits"
    );
}

async fn the_whole_request_is_compared_but_for_what_is_excluded<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    let first = send(
        &server,
        "/ann/same?a=1",
        r#"{"item":"tea","wei":18446744073709551616,"sent_at":1}"#,
    )
    .await;
    assert_eq!((first.status, &*first.body), (200, &br#""tea""#[..]));
    let spaced = send(
        &server,
        "/ann/same?a=1",
        r#"{ "sent_at":2, "wei" : 18446744073709551616, "item":"tea" }"#,
    )
    .await;
    assert!(spaced.is_replay());
    for (path, body) in [
        (
            "/ann/same?a=2",
            r#"{"item":"tea","wei":18446744073709551616}"#,
        ),
        ("/ann/same", r#"{"item":"tea","wei":18446744073709551616}"#),
        (
            "/ann/same?a=1",
            r#"{"item":"tea","wei":18446744073709551616,"note":1}"#,
        ),
        (
            "/ann/same?a=1",
            r#"{"item":"tea","wei":18446744073709551617}"#,
        ),
    ] {
        assert_problem(
            &send(&server, path, body).await,
            422,
            "idempotency_key_mismatch",
        );
    }
    let malformed = send(&server, "/ann/same?a=1", "{").await;
    assert_eq!(malformed.status, 400);
    let large = format!(r#"{{"item":"{}"}}"#, "x".repeat(3 << 20));
    assert_eq!(send(&server, "/ann/same?a=1", &large).await.status, 413);
    assert_eq!(server.stored().await, (1, 0, 1));
}
