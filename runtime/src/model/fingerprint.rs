//! The fingerprint: a digest of the content that must be the same when a key comes again.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind};

/// SHA-256 over canonical JSON: object keys sorted, lengths prefixed, so the order of fields or of a `HashMap` does not matter.
///
/// RFC 8785 is not used on purpose: it turns numbers into doubles, and two amounts above 2^53 would be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub(crate) [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a value.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] when the value cannot be written as JSON.
    pub fn of(content: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        let value = serde_json::to_value(content).map_err(|source| {
            Error::caused_by(ErrorKind::Encode("a fingerprinted value"), source)
        })?;
        let mut digest = Sha256::new();
        absorb(&mut digest, &value);
        Ok(Self(digest.finalize().into()))
    }
}

fn absorb(digest: &mut Sha256, value: &Value) {
    match value {
        Value::Null => digest.update(b"n"),
        Value::Bool(flag) => digest.update(if *flag { b"t" } else { b"f" }),
        Value::Number(number) => absorb_text(digest, b'#', &number.to_string()),
        Value::String(text) => absorb_text(digest, b's', text),
        Value::Array(items) => {
            absorb_length(digest, b'a', items.len());
            items.iter().for_each(|item| absorb(digest, item));
        }
        Value::Object(fields) => {
            absorb_length(digest, b'o', fields.len());
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            for (name, field) in fields {
                absorb_text(digest, b'k', name);
                absorb(digest, field);
            }
        }
    }
}

fn absorb_text(digest: &mut Sha256, kind: u8, text: &str) {
    absorb_length(digest, kind, text.len());
    digest.update(text.as_bytes());
}

fn absorb_length(digest: &mut Sha256, kind: u8, length: usize) {
    digest.update([kind]);
    digest.update((length as u64).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(value: &Value) -> Fingerprint {
        Fingerprint::of(value).unwrap()
    }

    #[test]
    fn the_order_of_fields_does_not_matter() {
        let one: Value = serde_json::from_str(r#"{"a":1,"b":{"c":[1,2],"d":null}}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"b":{"d":null,"c":[1,2]},"a":1}"#).unwrap();
        assert_eq!(of(&one), of(&two));
    }

    #[test]
    fn amounts_above_two_to_the_53rd_differ() {
        assert_ne!(
            of(&json!(9_007_199_254_740_992_u64)),
            of(&json!(9_007_199_254_740_993_u64))
        );
    }

    #[test]
    fn structure_is_part_of_the_content() {
        let values = [
            json!(["ab"]),
            json!(["a", "b"]),
            json!("ab"),
            json!({"a": "b"}),
            json!([]),
            json!(null),
            json!("1"),
            json!(1),
        ];
        for (i, left) in values.iter().enumerate() {
            for right in &values[i + 1..] {
                assert_ne!(of(left), of(right), "{left} and {right}");
            }
        }
    }
}
