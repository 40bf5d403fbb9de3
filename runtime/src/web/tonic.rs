//! tonic: the key is read from the metadata, and a response and a [`Status`] can be recorded and replayed.
//!
//! A method of a service is `transparent`, and [`#[handlers]`](macro@crate::handlers) stands above `#[tonic::async_trait]`:
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # mod example {
//! # use effectively::{Ledger, handlers, idempotent, web::tonic::RequestExt};
//! # use sqlx::{Sqlite, SqliteConnection};
//! # use tonic::{Request, Response, Status};
//! # trait User { fn user(&self) -> &str; }
//! # impl User for Request<i64> { fn user(&self) -> &str { "" } }
//! # trait Orders { async fn cancel(&self, request: Request<i64>) -> Result<Response<()>, Status>; }
//! # struct Service { ledger: Ledger<Sqlite> }
//! #[handlers(from = self.ledger)]
//! // #[tonic::async_trait]
//! impl Orders for Service {
//!     #[idempotent(key = "{request.user()}/{request.idempotency_key()}", transparent)]
//!     async fn cancel(&self, tx: &mut SqliteConnection, request: Request<i64>) -> Result<Response<()>, Status> {
//! #       let _ = (tx, request);
//!         // …
//! #       Ok(Response::new(()))
//!     }
//! }
//! # }
//! ```
//!
//! | [`Error`] | code |
//! |---|---|
//! | 400: the key is missing or invalid | `INVALID_ARGUMENT` |
//! | 409: the first call still runs | `ABORTED` |
//! | 409: an earlier call was interrupted; 422: other content | `FAILED_PRECONDITION` |
//! | 503 | `UNAVAILABLE` |
//! | 500 | `INTERNAL` |

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use prost::Message;
use tonic::{
    Code, Request, Response, Status,
    metadata::{MetadataMap, MetadataValue},
};

use super::{Contract, header, media, problem};
use crate::{
    error::{Error, ErrorKind},
    handler::{Failure, Refusal, Replay},
    model::Recorded,
};

pub use crate::handler::origin::CallerKey;

/// What a key template asks of a request.
pub trait RequestExt {
    /// The caller's key, from the metadata `idempotency-key`. Missing or malformed, the call is refused with
    /// `INVALID_ARGUMENT`.
    fn idempotency_key(&self) -> CallerKey;
}

impl<T> RequestExt for Request<T> {
    fn idempotency_key(&self) -> CallerKey {
        let lines = self.metadata().as_ref().get_all(header::NAME);
        CallerKey(header::idempotency_key(
            lines.iter().map(|line| line.as_bytes()),
        ))
    }
}

impl<E: Into<Self>> From<Failure<E>> for Status {
    fn from(failure: Failure<E>) -> Self {
        match failure {
            Failure::Handler(error) => error.into(),
            Failure::Toolkit(error) => error.into(),
        }
    }
}

/// With [`Error::code`] in the metadata `effectively-code`, and `retry-after` in seconds where retrying helps.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut metadata = MetadataMap::new();
        metadata.insert("effectively-code", MetadataValue::from_static(error.code()));
        if let Some(seconds) = problem::retry_after_seconds(&error) {
            metadata.insert("retry-after", seconds.into());
        }
        let mut status = Self::with_metadata(code(&error), problem::detail(&error), metadata);
        status.set_source(Arc::new(error));
        status
    }
}

fn code(error: &Error) -> Code {
    match error.kind() {
        ErrorKind::KeyMissing | ErrorKind::KeyInvalid(_) => Code::InvalidArgument,
        ErrorKind::InFlight => Code::Aborted,
        ErrorKind::Mismatch | ErrorKind::Interrupted => Code::FailedPrecondition,
        _ if error.status() == 503 => Code::Unavailable,
        _ => Code::Internal,
    }
}

/// Marks the implementation of [`Replay`] for a response with a message of prost.
#[derive(Debug)]
pub enum ViaProst {}

/// The message in its own encoding, and the metadata. A replay says so in its metadata.
impl<T: Message + Default> Replay<ViaProst> for Response<T> {
    fn record(&mut self) -> Result<Recorded, Error> {
        let message = Recorded::success(self.get_ref().encode_to_vec());
        Ok(media::with_headers(message, self.metadata().as_ref()))
    }

    fn restore(recorded: &Recorded) -> Result<Self, Error> {
        let message = T::decode(recorded.body()).map_err(|_| ErrorKind::Decode)?;
        let mut response = Self::new(message);
        *response.metadata_mut().as_mut() = media::headers(recorded)?;
        Ok(response)
    }

    fn replay(recorded: &Recorded) -> Result<Self, Error> {
        let mut response = Self::restore(recorded)?;
        mark(response.metadata_mut());
        Ok(response)
    }
}

/// Final is a code about the state that the operation met: `NOT_FOUND`, `ALREADY_EXISTS`, `FAILED_PRECONDITION`. One about the
/// request's form frees the key for the corrected request, and one about the moment or the server for a retry.
///
/// Code, message, details and metadata are recorded as the headers of gRPC, without an HTTP status.
impl Refusal for Status {
    fn refusal(&self) -> Option<Recorded> {
        let is_final = matches!(
            self.code(),
            Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition
        );
        let mut headers = HeaderMap::new();
        self.add_header(&mut headers).ok()?;
        is_final.then(|| media::with_headers(Recorded::refusal(Vec::new()), &headers))
    }

    fn from_refusal(recorded: &Recorded) -> Option<Self> {
        Self::from_header_map(&media::headers(recorded).ok()?)
    }

    fn replay(recorded: &Recorded) -> Option<Self> {
        let mut status = Self::from_refusal(recorded)?;
        mark(status.metadata_mut());
        Some(status)
    }
}

fn mark(metadata: &mut MetadataMap) {
    let marker = Contract::current().marker();
    metadata
        .as_mut()
        .insert(marker, HeaderValue::from_static("true"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_a_client_can_do_and_nothing_of_the_inside() {
        for (kind, code, retry) in [
            (ErrorKind::KeyMissing, Code::InvalidArgument, false),
            (ErrorKind::Mismatch, Code::FailedPrecondition, false),
            (ErrorKind::InFlight, Code::Aborted, true),
            (ErrorKind::CommitUnknown, Code::Unavailable, true),
            (ErrorKind::TablesMissing, Code::Internal, false),
        ] {
            let status = Status::from(Error::from(kind));
            assert_eq!(status.code(), code);
            assert_eq!(status.metadata().contains_key("retry-after"), retry);
            assert!(!status.message().contains("table"));
        }
    }

    #[test]
    fn what_is_recorded_comes_back_and_says_so() {
        let mut first = Response::new(String::from("tea"));
        let bytes = MetadataValue::from_bytes(&[0, 255]);
        first.metadata_mut().insert_bin("x-bin", bytes.clone());
        let mut again = <Response<String>>::replay(&first.record().unwrap()).unwrap();
        assert_eq!(again.get_ref(), "tea");
        assert_eq!(again.metadata_mut().remove_bin("x-bin"), Some(bytes));
        assert!(again.metadata().contains_key("idempotent-replayed"));
        let first = Status::with_details(Code::NotFound, "100 %", vec![0, 255].into());
        let again = <Status as Refusal>::replay(&first.refusal().unwrap()).unwrap();
        assert_eq!((again.code(), again.message()), (first.code(), "100 %"));
        assert_eq!(again.details(), [0, 255]);
        assert!(again.metadata().contains_key("idempotent-replayed"));
        for free in [Status::internal(""), Status::invalid_argument("")] {
            assert_eq!(free.refusal(), None);
        }
    }
}
