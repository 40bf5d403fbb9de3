//! The content of a request, for a fingerprint of all of it.

use std::{fmt, marker::PhantomData};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::model::json::Json;

/// An extractor around `T` that also takes the content of the request, so that another request with the same key is refused.
///
/// `fingerprint(cmd)` compares what a handler understood; this compares what was sent: method, path, query and body.
///
/// ```
/// # #[cfg(all(feature = "axum", feature = "postgres"))]
/// # mod example {
/// use axum::Json;
/// use effectively::{IdempotencyKey, idempotent, web::Fingerprinted};
/// # #[derive(serde::Deserialize)]
/// # struct Pay { account: i64 }
/// # struct User { id: i64 }
/// # impl<S: Sync> axum::extract::FromRequestParts<S> for User {
/// #     type Rejection = ();
/// #     async fn from_request_parts(_: &mut http::request::Parts, _: &S) -> Result<Self, ()> { Ok(User { id: 1 }) }
/// # }
///
/// #[idempotent(key = "{user.id}/{idempotency_key}", fingerprint(request))]
/// async fn pay(
///     tx: &mut sqlx::PgConnection,
///     user: User,
///     idempotency_key: IdempotencyKey,
///     Fingerprinted(Json(cmd), request): Fingerprinted<Json<Pay>>,
/// ) -> Result<Json<i64>, axum::http::StatusCode> {
/// #   let _ = (tx, cmd.account);
///     // …
/// #   Ok(Json(1))
/// }
/// # }
/// ```
///
/// The body is read as a whole before `T` reads it again, within the framework's limit for bodies. `X` names fields of a JSON
/// body that may differ, see [`Exclude`].
#[derive(Debug)]
pub struct Fingerprinted<T, X = Nothing>(pub T, pub RequestContent<X>);

/// Fields of a JSON body that a retry may change, such as the time it was sent.
///
/// ```
/// use effectively::web::{Exclude, Fingerprinted};
///
/// enum SentAt {}
///
/// impl Exclude for SentAt {
///     const FIELDS: &'static [&'static str] = &["/sent_at", "/meta/attempt"];
/// }
///
/// type Same<T> = Fingerprinted<T, SentAt>;
/// ```
pub trait Exclude {
    /// JSON pointers (RFC 6901) to members of objects.
    const FIELDS: &'static [&'static str];
}

/// Everything is compared.
#[derive(Debug)]
pub enum Nothing {}

impl Exclude for Nothing {
    const FIELDS: &'static [&'static str] = &[];
}

/// Method, path, query and body of a request; its `Serialize` is for a fingerprint only.
///
/// A JSON body (`application/json` and `…+json`) is compared as content: the order of fields and white space do not matter, nor
/// does how a number is spelled (`1.50`, `1.5`); all of its digits do.
/// Any other body is compared byte for byte, so a multipart form, whose boundary is new with every request, is better compared
/// by what the handler understood of it.
///
/// `Debug` shows nothing of it.
pub struct RequestContent<X = Nothing>(Content, PhantomData<fn() -> X>);

#[derive(Clone, Serialize)]
struct Content(String, String, Option<String>, Body);

#[derive(Clone, Serialize)]
#[serde(rename_all = "lowercase")]
enum Body {
    Json(Json),
    Sha256([u8; 32]),
}

impl<X: Exclude> RequestContent<X> {
    pub(super) fn new(
        method: &str,
        path: &str,
        query: Option<&str>,
        content_type: Option<&[u8]>,
        body: &[u8],
    ) -> Self {
        let json = content_type
            .filter(|media_type| is_json(media_type))
            .and_then(|_| Json::parse(body));
        let body = match json {
            Some(mut json) => {
                X::FIELDS.iter().for_each(|field| json.remove(field));
                Body::Json(json)
            }
            None => Body::Sha256(Sha256::digest(body).into()),
        };
        let query = query.map(str::to_owned);
        let content = Content(method.to_owned(), path.to_owned(), query, body);
        Self(content, PhantomData)
    }
}

impl<X> Clone for RequestContent<X> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<X> Serialize for RequestContent<X> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<X> fmt::Debug for RequestContent<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestContent").finish_non_exhaustive()
    }
}

fn is_json(media_type: &[u8]) -> bool {
    let essence = media_type.split(|b| *b == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii().to_ascii_lowercase();
    essence == b"application/json" || essence.ends_with(b"+json")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Fingerprint;

    enum SentAt {}
    impl Exclude for SentAt {
        const FIELDS: &'static [&'static str] =
            &["/sent_at", "/meta/a~1b", "/list/1/x", "/no/such"];
    }

    const JSON: Option<&[u8]> = Some(b"Application/JSON; charset=utf-8");

    fn of<X: Exclude>(query: Option<&str>, media_type: Option<&[u8]>, body: &[u8]) -> Fingerprint {
        Fingerprint::of(&RequestContent::<X>::new(
            "POST", "/a", query, media_type, body,
        ))
        .unwrap()
    }

    #[test]
    fn json_is_compared_as_content_and_anything_else_byte_for_byte() {
        let (one, two) = (br#"{"a":1,"b":2}"#, br#"{ "b": 2, "a": 1 }"#);
        assert_eq!(
            of::<Nothing>(None, JSON, one),
            of::<Nothing>(None, JSON, two)
        );
        assert_ne!(
            of::<Nothing>(None, None, one),
            of::<Nothing>(None, None, two)
        );
        let number = |body| of::<Nothing>(None, JSON, body);
        assert_ne!(number(b"1"), number(b"\"1\""));
        assert_eq!(number(b"1.50"), number(b"15e-1"));
        for (one, other) in [
            ("18446744073709551616", "18446744073709551617"),
            ("0.1", "0.10000000000000000000001"),
            ("1e400", "2e400"),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
        ] {
            assert_ne!(number(one.as_bytes()), number(other.as_bytes()));
        }
    }

    #[test]
    fn method_path_and_query_are_content() {
        let base = of::<Nothing>(None, None, b"");
        assert_ne!(base, of::<Nothing>(Some(""), None, b""));
        assert_ne!(base, of::<Nothing>(Some("a=1"), None, b""));
        for (method, path) in [("PUT", "/a"), ("POST", "/b")] {
            let other = RequestContent::<Nothing>::new(method, path, None, None, b"");
            assert_ne!(base, Fingerprint::of(&other).unwrap());
        }
    }

    #[test]
    fn excluded_fields_may_differ_and_others_may_not() {
        let body = |sent: u8, other: u8, meta: u8| {
            let json = json!({ "sent_at": sent, "x": other, "meta": { "a/b": meta, "c": 1 } });
            of::<SentAt>(None, JSON, json.to_string().as_bytes())
        };
        assert_eq!(body(1, 1, 1), body(2, 1, 2));
        assert_ne!(body(1, 1, 1), body(1, 2, 1));
        let list = |one: u8, other: u8| {
            let json = json!({ "list": [{ "x": one }, { "x": other }] });
            of::<SentAt>(None, JSON, json.to_string().as_bytes())
        };
        assert_eq!(list(1, 1), list(1, 2));
        assert_ne!(list(1, 1), list(2, 1));
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let content = RequestContent::<Nothing>::new("POST", "/a", None, None, b"secret");
        assert_eq!(format!("{content:?}"), "RequestContent(..)");
    }
}
