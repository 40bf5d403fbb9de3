//! The `Idempotency-Key` header: one RFC 8941 Item of type String (draft-ietf-httpapi-idempotency-key-header-07, section 2.1).

use http::HeaderMap;
use sfv::{BareItem, Item, Parser};

use crate::{
    error::{Error, ErrorKind, KeyProblem},
    handler::IdempotencyKey,
};

const NAME: &str = "idempotency-key";

/// Reads the key. Two header lines are no Item: which of them would count is nobody's guess.
///
/// # Errors
/// [`ErrorKind::KeyMissing`], and [`ErrorKind::KeyInvalid`] for anything but one string of 1 to 255 bytes.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<IdempotencyKey, Error> {
    let mut lines = headers.get_all(NAME).iter();
    let (first, more) = (lines.next(), lines.next());
    match (first, more) {
        (None, _) => Err(ErrorKind::KeyMissing.into()),
        (Some(line), None) => match Parser::new(line.as_bytes()).parse::<Item>() {
            Ok(Item {
                bare_item: BareItem::String(text),
                ..
            }) => IdempotencyKey::new(text.as_str()),
            _ => Err(KeyProblem::NotAString.into()),
        },
        (Some(_), Some(_)) => Err(KeyProblem::NotAString.into()),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(lines: &[&[u8]], expected: Result<&str, ErrorKind>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("Idempotency-Key", HeaderValue::from_bytes(line).unwrap());
        }
        let key = idempotency_key(&headers);
        let found = key
            .as_ref()
            .map(IdempotencyKey::expose)
            .map_err(|error| error.kind().clone());
        assert_eq!(found, expected, "{lines:?}");
    }

    #[test]
    fn a_string_is_unquoted_and_parameters_are_ignored() {
        check(&[b"\"8e03978e\""], Ok("8e03978e"));
        check(&[b"  \"a b\"  "], Ok("a b"));
        check(&[br#""a\"b\\c""#], Ok(r#"a"b\c"#));
        check(&[b"\"k\";v=1"], Ok("k"));
    }

    #[test]
    fn anything_else_is_refused() {
        let refused = [
            &b"8e03978e"[..],
            b"1",
            b"?1",
            b":YWJj:",
            b"(\"a\")",
            b"\"a",
            b"\"a\\x\"",
            b"\"\xC3\xA9\"",
            b"\"a\", \"b\"",
            b"",
        ];
        for line in refused {
            check(&[line], Err(ErrorKind::KeyInvalid(KeyProblem::NotAString)));
        }
        check(
            &[b"\"a\"", b"\"a\""],
            Err(ErrorKind::KeyInvalid(KeyProblem::NotAString)),
        );
    }

    #[test]
    fn missing_empty_and_too_long_are_told_apart() {
        check(&[], Err(ErrorKind::KeyMissing));
        check(
            &[b"\"\""],
            Err(ErrorKind::KeyInvalid(KeyProblem::Empty { part: 1 })),
        );
        let long = format!("\"{}\"", "k".repeat(256));
        check(
            &[long.as_bytes()],
            Err(ErrorKind::KeyInvalid(KeyProblem::TooLong { part: 1 })),
        );
    }
}
