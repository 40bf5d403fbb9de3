//! How a response becomes the recorded outcome, and how it comes back.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, ErrorKind},
    model::Recorded,
};

/// A response that can be recorded and replayed.
///
/// Every type that serde can write and read is one, as JSON. With a web framework's feature so are its `Json<T>`, its
/// `StatusCode`, `(StatusCode, R)`, `(StatusCode, HeaderMap, R)` and its `Response`, if the whole body is there. `()` and `None`
/// are stored as an empty body.
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
        let body = to_json(self)?;
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

pub(crate) fn to_json(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value)
        .map_err(|source| Error::caused_by(ErrorKind::Encode("the response"), source))
}

/// The error of serde_json is left out: it quotes the value that it did not expect, and no payload may reach a log.
pub(crate) fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|_| ErrorKind::Decode.into())
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn an_error_of_reading_back_shows_nothing_of_the_answer() {
        let error = u8::restore(&Recorded::success(b"\"4111-1111\"".to_vec())).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Decode);
        assert!(!format!("{error:?}").contains("4111"));
    }
}
