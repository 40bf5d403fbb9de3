//! poem: the ledger and the key are extractors, the outcome and both kinds of failure are responses.

use std::{io, pin::Pin};

use bytes::Bytes;
use http::{StatusCode, header::CONTENT_TYPE};
use http_body_util::combinators::BoxBody;
use poem::{
    Body, FromRequest, IntoResponse, Request, RequestBody, Response, error::ResponseError,
    web::Json,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Exclude, Fingerprinted, RequestContent, ViaJson, ViaResponse, header, media, response,
};
use crate::{
    engine::Ledger,
    error::{Error, ErrorKind},
    handler::{Failure, IdempotencyKey, Outcome, Replay, from_json},
    model::Recorded,
    store::Dialect,
};

/// From the data of the endpoint, added as `.data(ledger)`.
impl<'a, DB: Dialect> FromRequest<'a> for Ledger<DB> {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let missing = "the endpoint has no `Ledger` of this database: add `.data(ledger)`";
        let error = || poem::Error::from_string(missing, StatusCode::INTERNAL_SERVER_ERROR);
        request.data::<Self>().cloned().ok_or_else(error)
    }
}

/// From the `Idempotency-Key` header. Missing or malformed, it is refused with 400.
impl<'a> FromRequest<'a> for IdempotencyKey {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let lines = request.headers().get_all(header::NAME);
        let key = header::idempotency_key(lines.iter().map(|line| line.as_bytes()));
        key.map_err(Into::into)
    }
}

/// The largest body that [`Fingerprinted`] reads, in bytes: poem's own extractors know no limit. It is axum's default.
const LARGEST_BODY: usize = 2 << 20;

/// Reads a body of at most 2 MiB, and lets `T` read it again. A larger one is refused with 413.
impl<'a, T: FromRequest<'a>, X: Exclude> FromRequest<'a> for Fingerprinted<T, X> {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> poem::Result<Self> {
        let body = body.take()?.into_bytes_limit(LARGEST_BODY).await?;
        let content = RequestContent::new(
            request.method().as_str(),
            request.uri().path(),
            request.uri().query(),
            request
                .headers()
                .get(CONTENT_TYPE)
                .map(|value| value.as_bytes()),
            &body,
        );
        let mut again = RequestBody::new(Body::from(body));
        // In a box, or rustc takes no handler's future for `Send` (rust-lang/rust#100013).
        let value: Pin<Box<dyn Future<Output = poem::Result<T>> + Send>> =
            Box::pin(T::from_request(request, &mut again));
        Ok(Self(value.await?, content))
    }
}

/// The recorded status, kept headers and body. A replay says so, and no cache may keep it.
///
/// Without a recorded status a response is 200 and a refusal 422.
impl<R> IntoResponse for Outcome<R> {
    fn into_response(self) -> Response {
        answer(response::of_outcome(&self))
    }
}

/// Not a `ResponseError`, so that a handler's error may also be a `poem::Error`.
impl<E: Into<Self>> From<Failure<E>> for poem::Error {
    fn from(failure: Failure<E>) -> Self {
        match failure {
            Failure::Handler(error) => error.into(),
            Failure::Toolkit(error) => error.into(),
        }
    }
}

/// RFC 9457 problem+json.
impl ResponseError for Error {
    fn status(&self) -> StatusCode {
        response::of_error(self).status()
    }

    fn as_response(&self) -> Response {
        answer(response::of_error(self))
    }
}

impl<T: Serialize + DeserializeOwned> Replay<ViaJson> for Json<T> {
    fn record(&mut self) -> Result<Recorded, Error> {
        media::record_json(&self.0)
    }

    fn restore(recorded: &Recorded) -> Result<Self, Error> {
        from_json(recorded.body()).map(Json)
    }
}

/// A response whose whole body is there. A stream is refused: [`ErrorKind::Streaming`].
impl Replay<ViaResponse> for Response {
    fn record(&mut self) -> Result<Recorded, Error> {
        let bytes = media::whole(BoxBody::<Bytes, io::Error>::from(self.take_body()))
            .ok_or(ErrorKind::Streaming)?;
        self.set_body(bytes.clone());
        Ok(media::record(self.status(), self.headers(), bytes.into()))
    }

    fn restore(recorded: &Recorded) -> Result<Self, Error> {
        Ok(answer(media::restore(recorded)))
    }
}

fn answer(response: http::Response<Vec<u8>>) -> Response {
    let (head, body) = response.into_parts();
    let mut answer = Response::from((head.status, body));
    *answer.headers_mut() = head.headers;
    answer
}
