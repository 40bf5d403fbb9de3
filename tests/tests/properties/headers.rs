//! The `Idempotency-Key` header may hold any bytes.

use axum::extract::FromRequestParts;
use axum::http::request::Builder;
use axum::http::{HeaderValue, Request};
use effectively::{Error, IdempotencyKey};
use futures_util::FutureExt;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::bounded;

proptest! {
    #![proptest_config(bounded(256))]

    #[test]
    fn no_header_makes_the_parser_panic(lines in vec(line(), 0..3)) {
        let mut request = Request::builder();
        for line in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
            request = request.header("Idempotency-Key", line);
        }
        match extracted(request) {
            Ok(key) => {
                let text = IdempotencyKey::expose(&key);
                prop_assert!((1..=255).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            }
            Err(error) => prop_assert_eq!(error.status(), 400),
        }
    }

    #[test]
    fn every_printable_text_is_read_back_from_its_header(text in "[ -~]{1,255}") {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        let request = Request::builder().header("Idempotency-Key", format!("\"{quoted}\""));
        let key = extracted(request).expect("a key");
        prop_assert_eq!(IdempotencyKey::expose(&key), text);
    }
}

fn extracted(request: Builder) -> Result<IdempotencyKey, Error> {
    let (mut parts, ()) = request.body(()).expect("a request").into_parts();
    let key = IdempotencyKey::from_request_parts(&mut parts, &()).now_or_never();
    key.expect("nothing to wait for")
}

/// Bytes of all kinds, and what is almost a string.
fn line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..40),
        "[\"\\\\ a-c;=?:@().,0-9-]{0,20}".prop_map(String::into_bytes),
        "\"[ -~]{0,300}\"?".prop_map(String::into_bytes),
    ]
}
