//! The `Idempotency-Key` header: one RFC 8941 Item of type String (draft-ietf-httpapi-idempotency-key-header-07, section 2.1).

use sfv::{BareItem, Item, Parser};

use super::Contract;
use crate::{
    error::{Error, ErrorKind, KeyProblem},
    handler::IdempotencyKey,
};

/// The name of the header, in lower case.
pub(crate) const NAME: &str = "idempotency-key";

/// Reads the key out of all lines with the header's name. Two of them are no Item: which would count is nobody's guess.
///
/// # Errors
/// [`ErrorKind::KeyMissing`], and [`ErrorKind::KeyInvalid`] for anything but one string of 1 to 255 bytes.
pub(crate) fn idempotency_key<'a>(
    lines: impl IntoIterator<Item = &'a [u8]>,
) -> Result<IdempotencyKey, Error> {
    read(lines, Contract::current().is_lenient())
}

fn read<'a>(
    lines: impl IntoIterator<Item = &'a [u8]>,
    lenient: bool,
) -> Result<IdempotencyKey, Error> {
    let mut lines = lines.into_iter();
    let line = match (lines.next(), lines.next()) {
        (None, _) => return Err(ErrorKind::KeyMissing.into()),
        (Some(_), Some(_)) => return Err(KeyProblem::NotAString.into()),
        (Some(line), None) => line,
    };
    match (Parser::new(line).parse::<Item>(), unquoted(line)) {
        (
            Ok(Item {
                bare_item: BareItem::String(text),
                ..
            }),
            _,
        ) => IdempotencyKey::new(text.as_str()),
        (_, Some(text)) if lenient => IdempotencyKey::new(text),
        _ => Err(KeyProblem::NotAString.into()),
    }
}

/// A key without quotes, as many clients send it. Nothing that could be a list, a parameter or a torn string.
fn unquoted(line: &[u8]) -> Option<&str> {
    let text = str::from_utf8(line).ok()?.trim_matches([' ', '\t']);
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b',' | b';');
    (!text.is_empty() && text.bytes().all(plain)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&[u8]], expected: Result<&str, ErrorKind>) {
        check_as(false, lines, expected);
    }

    fn check_as(lenient: bool, lines: &[&[u8]], expected: Result<&str, ErrorKind>) {
        let key = read(lines.iter().copied(), lenient);
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

    #[test]
    fn lenient_takes_a_key_without_quotes_as_the_same_key() {
        let no_string = || Err(ErrorKind::KeyInvalid(KeyProblem::NotAString));
        for line in [
            &b"8e03-97"[..],
            b" 8e03-97 ",
            b"\"8e03-97\"",
            b"\"8e03-97\";v=1",
        ] {
            check_as(true, &[line], Ok("8e03-97"));
        }
        for (line, key) in [(&b"1"[..], "1"), (b"?1", "?1"), (b":YWJj:", ":YWJj:")] {
            check_as(true, &[line], Ok(key));
        }
        for line in [
            &b""[..],
            b" ",
            b"a b",
            b"a, b",
            b"a;v=1",
            b"\"a",
            b"a\"",
            b"\xC3\xA9",
        ] {
            check_as(true, &[line], no_string());
        }
        check_as(true, &[b"a", b"a"], no_string());
    }

    /// A fuzz target.
    #[test]
    fn any_bytes_are_one_key_or_an_error_that_says_why() {
        bolero::check!().for_each(|bytes: &[u8]| {
            check_bytes(bytes);
            check_bytes(&[b"\"", bytes, b"\""].concat());
        });
    }

    fn check_bytes(bytes: &[u8]) {
        let lines = || bytes.split(|byte| *byte == b'\n');
        let (strict, lenient) = (read(lines(), false), read(lines(), true));
        if let Ok(key) = &strict {
            let same = lenient.as_ref().map(IdempotencyKey::expose).ok();
            assert_eq!(
                same,
                Some(IdempotencyKey::expose(key)),
                "lenient takes at least as much"
            );
        }
        for key in [strict, lenient] {
            match key {
                Ok(key) => {
                    let text = IdempotencyKey::expose(&key);
                    assert!((1..=255).contains(&text.len()));
                    assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                    let quoted = text.replace('\\', r"\\").replace('"', "\\\"");
                    check(&[format!("\"{quoted}\"").as_bytes()], Ok(text));
                }
                Err(error) => assert!(matches!(error.kind(), ErrorKind::KeyInvalid(_))),
            }
        }
    }
}
