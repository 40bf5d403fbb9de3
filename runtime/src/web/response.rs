//! The answers as responses of the `http` crate, which each adapter turns into its framework's own.

use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, LINK, RETRY_AFTER, SET_COOKIE},
};

use super::{Contract, problem};
use crate::{error::Error, handler::Outcome, model::Recorded};

pub(super) const JSON: &str = "application/json";

/// The recorded status, kept headers and body. A replay says so, and no cache may keep it.
///
/// Without a recorded status a response is 200 and a refusal 422.
pub(super) fn of_outcome<R>(outcome: &Outcome<R>) -> Response<Vec<u8>> {
    let recorded = outcome.recorded();
    let mut response = of_recorded(recorded);
    let headers = response.headers_mut();
    if outcome.is_replay() {
        headers.insert(
            Contract::current().marker(),
            HeaderValue::from_static("true"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    } else {
        for cookie in recorded.cookies() {
            if let Ok(cookie) = HeaderValue::from_bytes(cookie) {
                headers.append(SET_COOKIE, cookie);
            }
        }
    }
    response
}

/// What is stored, and nothing about how it came here.
pub(super) fn of_recorded(recorded: &Recorded) -> Response<Vec<u8>> {
    let fallback = if recorded.is_refusal() {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    let status = recorded
        .status()
        .and_then(|status| StatusCode::from_u16(status).ok());
    let mut response = Response::new(recorded.body().to_vec());
    *response.status_mut() = status.unwrap_or(fallback);
    let headers = response.headers_mut();
    for (name, value) in recorded.headers() {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    if recorded.is_json() && !recorded.body().is_empty() && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    }
    response
}

/// RFC 9457 problem+json.
pub(super) fn of_error(error: &Error) -> Response<Vec<u8>> {
    let problem = problem::Problem::of(error);
    let mut response = Response::new(problem.to_json());
    *response.status_mut() =
        StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
    if let Ok(link) = HeaderValue::try_from(problem.link()) {
        headers.insert(LINK, link);
    }
    if let Some(seconds) = problem::retry_after_seconds(error) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
