//! How a response becomes the recorded outcome, and how it comes back.

use serde::{Serialize, de::DeserializeOwned, ser};

use crate::{
    error::{Error, ErrorKind},
    model::{Recorded, canonical::Canonical, json},
};

/// A response that can be recorded and replayed.
///
/// Every type that serde can write and read is one, as JSON. With a web framework's feature so are its `Json<T>`, its
/// `StatusCode`, `(StatusCode, R)`, `(StatusCode, HeaderMap, R)` and its `Response`, if the whole body is there. `()` and `None`
/// are stored as an empty body.
///
/// What JSON does not bring back is an error before the commit, and the key is free: `NaN` and the infinities, `Some(None)`, and
/// what is skipped when it is written but needed when it is read. Debug builds read back every answer; release builds only
/// those in which JSON may have written `null` for something else.
///
/// `M` only tells the implementations apart and is always inferred. An own implementation names an own type there:
///
/// ```
/// use effectively::{Error, Recorded, Replay};
///
/// struct Pdf(Vec<u8>);
/// enum ViaPdf {}
///
/// impl Replay<ViaPdf> for Pdf {
///     fn record(&mut self) -> Result<Recorded, Error> {
///         Ok(Recorded::success(self.0.clone()).with_header("content-type", b"application/pdf"))
///     }
///
///     fn restore(recorded: &Recorded) -> Result<Self, Error> {
///         Ok(Self(recorded.body().to_vec()))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "the response type `{Self}` cannot be recorded and replayed",
    label = "cannot be recorded",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or implement `effectively::Replay`",
    note = "a streaming body (`Sse`, `Body`, a stream) cannot be: it would be truncated; return its bytes, or where it can be fetched",
    note = "events are returned with `#[outbox]` on the function as well"
)]
pub trait Replay<M>: Sized {
    /// The bytes that the first answer and every replay are made from. A body that can be read only once is put back.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] when the value cannot be written, [`ErrorKind::Streaming`] when it is not there yet; the call is
    /// rolled back and the key is free.
    fn record(&mut self) -> Result<Recorded, Error>;

    /// The value again. It must read whatever a version of this program wrote within the retention.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] when the bytes are not such a value.
    fn restore(recorded: &Recorded) -> Result<Self, Error>;

    /// The value for a replay, marked as one where the type can carry that.
    ///
    /// # Errors
    /// As [`restore`](Self::restore).
    fn replay(recorded: &Recorded) -> Result<Self, Error> {
        Self::restore(recorded)
    }
}

/// Marks the implementation of [`Replay`] for types of serde.
#[derive(Debug)]
pub enum ViaSerde {}

const NULL: &[u8] = b"null";

/// JSON. `null` is stored as an empty body, so that a call without a response has no payload to bind.
#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Replay<ViaSerde> for T {
    fn record(&mut self) -> Result<Recorded, Error> {
        let body = answer_to_json(self)?;
        Ok(Recorded::json(if body == NULL { Vec::new() } else { body }))
    }

    fn restore(recorded: &Recorded) -> Result<Self, Error> {
        from_json(if recorded.body().is_empty() {
            NULL
        } else {
            recorded.body()
        })
    }
}

/// An answer as JSON that brings it back.
///
/// # Errors
/// [`ErrorKind::Encode`] when JSON cannot say what the value is.
pub(crate) fn answer_to_json<T: Serialize + DeserializeOwned>(value: &T) -> Result<Vec<u8>, Error> {
    let encoding = |source| Error::caused_by(ErrorKind::Encode("the response"), source);
    let json = serde_json::to_vec(value).map_err(encoding)?;
    if cfg!(debug_assertions) || json::holds_null(&json) {
        read_back(value, &json).map_err(encoding)?;
    }
    Ok(json)
}

/// Compares the value with what a replay would make of its JSON.
fn read_back<T: Serialize + DeserializeOwned>(
    value: &T,
    json: &[u8],
) -> Result<(), serde_json::Error> {
    let is_same = match serde_json::from_slice::<T>(json) {
        Ok(again) => Canonical::sorted(value)? == Canonical::sorted(&again)?,
        // What serde_json says of it quotes the value.
        Err(_) => false,
    };
    if is_same {
        return Ok(());
    }
    Err(ser::Error::custom(
        "its JSON does not bring it back: JSON has no NaN, no infinity and no `Some(None)`, so return them as text or as an enum; \
         a field that may be skipped when it is written needs `#[serde(default)]`",
    ))
}

/// The error of serde_json is left out: it quotes the value that it did not expect, and no payload may reach a log.
pub(crate) fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|_| ErrorKind::Decode.into())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
        mut value: T,
        body: &[u8],
    ) {
        let recorded = value.record().unwrap();
        assert_eq!(recorded.body(), body);
        assert_eq!(T::restore(&recorded).unwrap(), value);
    }

    #[test]
    fn null_is_an_empty_body_and_comes_back() {
        check((), b"");
        check(None::<i32>, b"");
        check(Some(3), b"3");
        check(String::from("null"), b"\"null\"");
    }

    /// Fields that are not symmetric, and one that is.
    #[derive(Debug, Default, PartialEq, Serialize, serde::Deserialize)]
    struct Fields {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        needed: Vec<u8>,
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "some"
        )]
        patch: Option<Option<u8>>,
        set: HashSet<u8>,
    }

    fn some<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<u8>>, D::Error> {
        serde::Deserialize::deserialize(deserializer).map(Some)
    }

    fn refuse<T: Serialize + DeserializeOwned>(mut value: T) {
        let error = value.record().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Encode("the response"));
    }

    #[test]
    fn what_json_does_not_bring_back_is_refused() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            refuse(number);
            refuse(vec![Some(1.0), Some(number)]);
            refuse(BTreeMap::from([("a".to_owned(), number)]));
        }
        refuse(f32::NAN);
        refuse(Some(None::<u8>));
        refuse(Some(()));
        refuse(vec![Some(Some(None::<u8>))]);
        refuse(BTreeMap::from([((1, 2), 3)]));
        if cfg!(debug_assertions) {
            refuse(Fields::default());
        }
    }

    #[test]
    fn what_json_brings_back_is_recorded() {
        let double = 0.1 + f64::from_bits(0x3fe4_c27f_dd39_9d0d);
        check(double, double.to_string().as_bytes());
        check(u128::MAX, u128::MAX.to_string().as_bytes());
        check(BTreeMap::from([(-1, None::<u8>)]), br#"{"-1":null}"#);
        check(BTreeMap::from([(true, ())]), br#"{"true":null}"#);
        for (patch, body) in [
            (None, &br#"{"needed":[1],"set":[]}"#[..]),
            (Some(None), br#"{"needed":[1],"patch":null,"set":[]}"#),
        ] {
            let fields = Fields {
                needed: vec![1],
                patch,
                set: HashSet::new(),
            };
            check(fields, body);
        }
        let mut set = Fields {
            needed: vec![1],
            patch: None,
            set: (0..50).collect(),
        };
        assert_eq!(Fields::restore(&set.record().unwrap()).unwrap(), set);
    }

    #[test]
    fn every_double_comes_back() {
        bolero::check!().with_type().for_each(|bits: &u64| {
            let mut number = f64::from_bits(*bits);
            if number.is_finite() {
                let again = f64::restore(&number.record().unwrap()).unwrap();
                assert_eq!(again.to_bits(), number.to_bits());
            }
        });
    }

    #[test]
    fn an_error_of_reading_back_shows_nothing_of_the_answer() {
        let error = u8::restore(&Recorded::success(b"\"4111-1111\"".to_vec())).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Decode);
        assert!(!format!("{error:?}").contains("4111"));
    }
}
