//! tonic: the key is read from the metadata, and a response and a [`Status`] can be recorded and replayed.
//!
//! A method of a service is `transparent`, and [`#[handlers]`](macro@crate::handlers) stands above `#[tonic::async_trait]`:
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # mod example {
//! use effectively::{Ledger, handlers, idempotent, web::tonic::RequestExt};
//! use sqlx::{Sqlite, SqliteConnection};
//! use tonic::{Request, Response, Status};
//! # pub trait User { fn user(&self) -> &str; }
//! # impl User for Request<i64> { fn user(&self) -> &str { "" } }
//! # #[tonic::async_trait]
//! # pub trait Orders { async fn cancel(&self, request: Request<i64>) -> Result<Response<()>, Status>; }
//!
//! pub struct Service {
//!     ledger: Ledger<Sqlite>,
//! }
//!
//! #[handlers(from = self.ledger)]
//! #[tonic::async_trait]
//! impl Orders for Service {
//!     #[idempotent(key = "{request.user()}/{request.idempotency_key()}", on_error = "record", transparent)]
//!     async fn cancel(
//!         &self,
//!         tx: &mut SqliteConnection,
//!         request: Request<i64>,
//!     ) -> Result<Response<()>, Status> {
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

use http::{HeaderMap, HeaderName, HeaderValue};
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
        *response.metadata_mut().as_mut() = headers(recorded).ok_or(ErrorKind::Decode)?;
        Ok(response)
    }

    fn replay(recorded: &Recorded) -> Result<Self, Error> {
        let mut response = Self::restore(recorded)?;
        mark(response.metadata_mut());
        Ok(response)
    }
}

/// Final is a code that says something about the request; with one about the moment or the server, the key is free again.
///
/// Code, message, details and metadata are recorded as the headers of gRPC, without an HTTP status.
impl Refusal for Status {
    fn refusal(&self) -> Option<Recorded> {
        let is_final = matches!(
            self.code(),
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented
        );
        let mut headers = HeaderMap::new();
        self.add_header(&mut headers).ok()?;
        is_final.then(|| media::with_headers(Recorded::refusal(Vec::new()), &headers))
    }

    /// Marked as a replay.
    fn from_refusal(recorded: &Recorded) -> Option<Self> {
        let mut status = Self::from_header_map(&headers(recorded)?)?;
        mark(status.metadata_mut());
        Some(status)
    }
}

fn headers(recorded: &Recorded) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in recorded.headers() {
        headers.append(
            HeaderName::try_from(name).ok()?,
            HeaderValue::from_bytes(value).ok()?,
        );
    }
    Some(headers)
}

fn mark(metadata: &mut MetadataMap) {
    let marker = Contract::current().marker();
    metadata
        .as_mut()
        .insert(marker, HeaderValue::from_static("true"));
}
