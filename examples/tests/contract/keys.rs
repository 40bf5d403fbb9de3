//! The `Idempotency-Key` header: what is a key, what is none, and which are the same.

use effectively_tests::TestServer;

use crate::client::{assert_problem, assert_replayed, get, post};
use crate::server::{request, two_of};
use crate::shop::Shop;

on_every_server!(
    a_missing_key_is_refused_before_anything_happens,
    a_malformed_key_is_refused_before_anything_happens,
    a_key_with_control_characters_is_refused_before_anything_happens,
    a_quoted_key_and_the_same_without_quotes_are_one_key,
    the_longest_key_and_every_printable_one_are_taken,
    the_name_of_the_header_has_no_case,
    a_request_that_needs_no_key_ignores_the_header,
);
on_every_server!(and every database: keys_that_some_collations_take_for_equal_are_different);

async fn refused<DB: TestServer>(shop: &Shop<DB>, keys: &[&[u8]], code: &str) {
    // A body that is none: the key is looked at first, or as well.
    for body in [&*two_of("tea"), "{"] {
        let answer = shop.server.send(&post(Some("ann"), keys, body)).await;
        if body == "{" && answer.header("content-type") != Some("application/problem+json") {
            assert!((400..500).contains(&answer.status), "{answer:?}");
            continue;
        }
        assert_problem(&answer, 400, code);
        assert_eq!(answer.header("retry-after"), None, "a retry is no use");
    }
    assert_eq!(shop.stored().await, (0, 0, 0));
}

async fn a_missing_key_is_refused_before_anything_happens<DB: TestServer>(shop: Shop<DB>) {
    refused(&shop, &[], "idempotency_key_missing").await;
}

async fn a_malformed_key_is_refused_before_anything_happens<DB: TestServer>(shop: Shop<DB>) {
    let long = "k".repeat(256);
    let quoted = format!("\"{long}\"");
    let malformed: [&[&[u8]]; 20] = [
        &[b""],
        &[b"   "],
        &[b"\"\""],
        &[long.as_bytes()],
        &[quoted.as_bytes()],
        &[b"\"a\"", b"\"a\""],
        &[b"\"a\"", b"\"b\""],
        &[b"a", b"a"],
        &[b"", b"a"],
        &[b"\"a\", \"b\""],
        &[b"a, b"],
        &[b"a b"],
        &[b"(\"a\" \"b\")"],
        &[b"\"unterminated"],
        &[b"\"bad\\escape\""],
        &[b"\"tab\there\""],
        &[b"\"caf\xc3\xa9\""],
        &[b"\"caf\xe9\""],
        &[b"caf\xc3\xa9"],
        &[b"caf\xe9"],
    ];
    for keys in malformed {
        refused(&shop, keys, "idempotency_key_invalid").await;
    }
}

/// RFC 9110 knows no header with them: some servers end it before the toolkit sees it.
async fn a_key_with_control_characters_is_refused_before_anything_happens<DB: TestServer>(
    shop: Shop<DB>,
) {
    for control in [0, 1, 0x1b, 0x7f] {
        let key = [b"\"a", &[control][..], b"b\""].concat();
        let answer = shop
            .server
            .send(&post(Some("ann"), &[&key], &two_of("tea")))
            .await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert_eq!(shop.stored().await, (0, 0, 0));
    }
}

async fn a_quoted_key_and_the_same_without_quotes_are_one_key<DB: TestServer>(shop: Shop<DB>) {
    let keys = [
        "8e03978e-40d5-43dd-bc93-6894a57f9324",
        "k",
        "42",
        "0",
        "false",
        "?1",
        ":aGk=:",
    ];
    for key in keys {
        let first = shop.server.order(key, "tea").await;
        assert_eq!(first.kind(), (201, false), "{key}");
        for same in [
            format!("\"{key}\""),
            key.to_owned(),
            format!("  {key}\t"),
            format!("   \"{key}\"  "),
            format!("\"{key}\";v=1"),
        ] {
            let again = post(Some("ann"), &[same.as_bytes()], &two_of("tea"));
            assert_replayed(&first, &shop.server.send(&again).await);
        }
    }
    let count = keys.len() as i64;
    assert_eq!(shop.stored().await, (count, count, count));
}

async fn the_longest_key_and_every_printable_one_are_taken<DB: TestServer>(shop: Shop<DB>) {
    let printable: String = (' '..='~').filter(|c| !"\"\\".contains(*c)).collect();
    let keys = ["k".repeat(255), printable, r#"\"\\"#.to_owned()];
    for replayed in [false, true] {
        for key in &keys {
            let answer = shop.server.order(key, "tea").await;
            assert_eq!(answer.kind(), (201, replayed), "{key}");
        }
    }
    assert_eq!(shop.stored().await, (3, 3, 3));
}

async fn the_name_of_the_header_has_no_case<DB: TestServer>(shop: Shop<DB>) {
    let first = shop.server.order("k", "tea").await;
    for name in ["idempotency-key", "IDEMPOTENCY-KEY", "iDEMPOTENCY-kEY"] {
        let request = String::from_utf8(request("k", &two_of("tea"))).expect("text");
        let request = request.replace("Idempotency-Key", name);
        assert_replayed(&first, &shop.server.send(request.as_bytes()).await);
    }
}

async fn a_request_that_needs_no_key_ignores_the_header<DB: TestServer>(shop: Shop<DB>) {
    let keys: [&[&[u8]]; 4] = [&[], &[b"\"k\""], &[b"\"unterminated"], &[b"a", b"a"]];
    for keys in keys {
        for path in ["/orders", "/events", "/healthz"] {
            let answer = shop.server.send(&get(path, Some("ann"), keys)).await;
            assert_eq!(answer.kind(), (200, false), "{path}");
        }
    }
    assert_eq!(shop.stored().await, (0, 0, 0));
}

async fn keys_that_some_collations_take_for_equal_are_different<DB: TestServer>(shop: Shop<DB>) {
    let keys = ["abc", "ABC", "abc ", " abc", "ab/c", "ab", "ab c"];
    for replayed in [false, true] {
        for key in keys {
            assert_eq!(
                shop.server.order(key, "tea").await.kind(),
                (201, replayed),
                "{key:?}"
            );
        }
    }
    // The user ends where it ends: `ann/ab` with `c` is not `ann` with `ab/c`.
    let shifted = post(Some("ann/ab"), &[b"\"c\""], &two_of("tea"));
    assert_eq!(shop.server.send(&shifted).await.kind(), (201, false));
    assert_eq!(shop.stored().await, (8, 8, 8));
}
