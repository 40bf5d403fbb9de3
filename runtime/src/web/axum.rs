//! axum: the ledger and the key are extractors, the outcome and both kinds of failure are responses.

use std::convert::Infallible;

use axum::{Json, body::Bytes};
use axum_core::{
    body::Body,
    extract::{FromRef, FromRequest, FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use http::{header::CONTENT_TYPE, request::Parts};
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

/// From the router's state.
impl<S, DB> FromRequestParts<S> for Ledger<DB>
where
    S: Send + Sync,
    DB: Dialect,
    Self: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(Self::from_ref(state))
    }
}

/// From the `Idempotency-Key` header. Missing or malformed, it is refused with 400.
impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let lines = parts.headers.get_all(header::NAME);
        header::idempotency_key(lines.iter().map(|line| line.as_bytes()))
    }
}

/// Reads the body within the router's limit, and lets `T` read it again.
impl<S, T, X> FromRequest<S> for Fingerprinted<T, X>
where
    S: Send + Sync,
    T: FromRequest<S>,
    X: Exclude,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let whole = Request::from_parts(parts.clone(), body);
        let body = Bytes::from_request(whole, state).await;
        let body = body.map_err(IntoResponse::into_response)?;
        let content = RequestContent::new(
            parts.method.as_str(),
            parts.uri.path(),
            parts.uri.query(),
            parts
                .headers
                .get(CONTENT_TYPE)
                .map(|value| value.as_bytes()),
            &body,
        );
        let again = Request::from_parts(parts, Body::from(body));
        match T::from_request(again, state).await {
            Ok(value) => Ok(Self(value, content)),
            Err(rejection) => Err(rejection.into_response()),
        }
    }
}

/// The recorded status, kept headers and body. A replay says so, and no cache may keep it.
///
/// Without a recorded status a response is 200 and a refusal 422.
impl<R> IntoResponse for Outcome<R> {
    fn into_response(self) -> Response {
        response::of_outcome(&self).map(Body::from)
    }
}

impl<E: IntoResponse> IntoResponse for Failure<E> {
    fn into_response(self) -> Response {
        match self {
            Self::Handler(error) => error.into_response(),
            Self::Toolkit(error) => error.into_response(),
        }
    }
}

/// RFC 9457 problem+json.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        response::of_error(&self).map(Body::from)
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
        let body = std::mem::take(self.body_mut());
        let bytes = media::whole(body).ok_or(ErrorKind::Streaming)?;
        *self.body_mut() = Body::from(bytes.clone());
        Ok(media::record(self.status(), self.headers(), bytes.into()))
    }

    fn restore(recorded: &Recorded) -> Result<Self, Error> {
        Ok(media::restore(recorded).map(Body::from))
    }
}
