//! axum: the ledger and the key are extractors, the outcome and both kinds of failure are responses.

use std::convert::Infallible;

use axum::Json;
use axum_core::{
    body::Body,
    extract::{FromRef, FromRequestParts},
    response::{IntoResponse, Response},
};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, LINK, RETRY_AFTER},
    request::Parts,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{header, problem};
use crate::{
    engine::Ledger,
    error::{Error, ErrorKind},
    handler::{Failure, IdempotencyKey, Outcome, Replay, from_json, to_json},
    model::Recorded,
    store::Dialect,
};

const JSON: &str = "application/json";
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

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
        header::idempotency_key(&parts.headers)
    }
}

/// The recorded status, kept headers and body. A replay says so, and no cache may keep it.
///
/// Without a recorded status a response is 200 and a refusal 422.
impl<R> IntoResponse for Outcome<R> {
    fn into_response(self) -> Response {
        let recorded = self.recorded();
        let fallback = if recorded.is_refusal() {
            StatusCode::UNPROCESSABLE_ENTITY
        } else {
            StatusCode::OK
        };
        let status = recorded
            .status()
            .and_then(|status| StatusCode::from_u16(status).ok());
        let mut response = Response::new(Body::from(recorded.body().to_vec()));
        *response.status_mut() = status.unwrap_or(fallback);
        let headers = response.headers_mut();
        for (name, value) in recorded.headers() {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::from_bytes(value))
            {
                headers.append(name, value);
            }
        }
        if !recorded.body().is_empty() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        }
        if self.is_replay() {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        response
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
        let mut response = Response::new(Body::from(problem::Problem::of(&self).to_json()));
        *response.status_mut() =
            StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
        if let Ok(link) = HeaderValue::try_from(problem::link(&self)) {
            headers.insert(LINK, link);
        }
        if let Some(seconds) = problem::retry_after_seconds(&self) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Marks the implementation of [`Replay`] for `axum::Json`.
#[derive(Debug)]
pub enum ViaJson {}
/// Marks the implementation of [`Replay`] for a status alone.
#[derive(Debug)]
pub enum ViaStatus {}
/// Marks the implementation of [`Replay`] for a status and a response.
#[derive(Debug)]
pub struct WithStatus<M>(std::marker::PhantomData<M>);

impl<T: Serialize + DeserializeOwned> Replay<ViaJson> for Json<T> {
    fn record(&self) -> Result<Recorded, Error> {
        Ok(
            Recorded::success(to_json(&self.0)?)
                .with_header(CONTENT_TYPE.as_str(), JSON.as_bytes()),
        )
    }

    fn restore(recorded: &Recorded) -> Result<Self, Error> {
        from_json(recorded.body()).map(Json)
    }
}

/// No body and no header, so nothing has to be bound as payload.
impl Replay<ViaStatus> for StatusCode {
    fn record(&self) -> Result<Recorded, Error> {
        Ok(Recorded::success(Vec::new()).with_status(self.as_u16()))
    }

    fn restore(recorded: &Recorded) -> Result<Self, Error> {
        let status = recorded
            .status()
            .and_then(|status| Self::from_u16(status).ok());
        status.ok_or_else(|| ErrorKind::Decode.into())
    }
}

impl<M, R: Replay<M>> Replay<WithStatus<M>> for (StatusCode, R) {
    fn record(&self) -> Result<Recorded, Error> {
        Ok(self.1.record()?.with_status(self.0.as_u16()))
    }

    fn restore(recorded: &Recorded) -> Result<Self, Error> {
        Ok((StatusCode::restore(recorded)?, R::restore(recorded)?))
    }
}
