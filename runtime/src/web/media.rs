//! What can be recorded and replayed in every framework that speaks the `http` crate: a status, headers, and a response.

use std::marker::PhantomData;

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_TYPE},
};
use serde::{Serialize, de::DeserializeOwned};

use super::response;
use crate::{
    error::{Error, ErrorKind},
    handler::{Replay, answer_to_json},
    model::Recorded,
};

/// Marks the implementations of [`Replay`] for the `Json` of a framework.
#[derive(Debug)]
pub enum ViaJson {}
/// Marks the implementation of [`Replay`] for a status alone.
#[derive(Debug)]
pub enum ViaStatus {}
/// Marks the implementations of [`Replay`] for the response of a framework.
#[derive(Debug)]
pub enum ViaResponse {}
/// Marks the implementation of [`Replay`] for a status and a response.
#[derive(Debug)]
pub struct WithStatus<M>(PhantomData<M>);
/// Marks the implementation of [`Replay`] for a status, headers and a response.
#[derive(Debug)]
pub struct ViaHead<M>(PhantomData<M>);

/// No body and no header, so nothing has to be bound as payload.
impl Replay<ViaStatus> for StatusCode {
    fn record(&mut self) -> Result<Recorded, Error> {
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
    fn record(&mut self) -> Result<Recorded, Error> {
        Ok(self.1.record()?.with_status(self.0.as_u16()))
    }

    fn restore(recorded: &Recorded) -> Result<Self, Error> {
        Ok((StatusCode::restore(recorded)?, R::restore(recorded)?))
    }
}

/// The headers stand in place of those of the same name that the response brings along.
impl<M, R: Replay<M>> Replay<ViaHead<M>> for (StatusCode, HeaderMap, R) {
    fn record(&mut self) -> Result<Recorded, Error> {
        let recorded = self.2.record()?.with_status(self.0.as_u16());
        Ok(with_headers(recorded, &self.1))
    }

    fn restore(recorded: &Recorded) -> Result<Self, Error> {
        Ok((
            StatusCode::restore(recorded)?,
            headers(recorded)?,
            R::restore(recorded)?,
        ))
    }
}

/// The `Json` of a framework.
pub(super) fn record_json(value: &(impl Serialize + DeserializeOwned)) -> Result<Recorded, Error> {
    let body = Recorded::success(answer_to_json(value)?);
    Ok(body.with_header(CONTENT_TYPE.as_str(), response::JSON.as_bytes()))
}

/// A whole response, whose body the adapter has read.
pub(super) fn record(status: impl Into<u16>, headers: &HeaderMap, body: Vec<u8>) -> Recorded {
    with_headers(Recorded::success(body).with_status(status.into()), headers)
}

/// A body that is there as a whole. A stream, whose length nobody knows, is not; and one of known length must be ready at once.
#[cfg(any(feature = "axum", feature = "poem"))]
pub(super) fn whole<B: http_body::Body>(body: B) -> Option<bytes::Bytes> {
    use std::task::{Context, Poll, Waker};

    use http_body_util::BodyExt;

    body.size_hint().exact()?;
    let read = std::pin::pin!(body.collect()).poll(&mut Context::from_waker(Waker::noop()));
    match read {
        Poll::Ready(Ok(all)) => Some(all.to_bytes()),
        Poll::Ready(Err(_)) | Poll::Pending => None,
    }
}

/// That response again. What a framework adds to an empty body must not be added here.
pub(super) fn restore(recorded: &Recorded) -> http::Response<Vec<u8>> {
    response::of_recorded(recorded)
}

pub(super) fn headers(recorded: &Recorded) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in recorded.headers() {
        let pair = (HeaderName::try_from(name), HeaderValue::from_bytes(value));
        let (Ok(name), Ok(value)) = pair else {
            return Err(ErrorKind::Decode.into());
        };
        headers.append(name, value);
    }
    Ok(headers)
}

/// In place of those of the same name. What `Connection` names belongs to that connection as well (RFC 9110 section 7.6.1).
pub(super) fn with_headers(recorded: Recorded, headers: &HeaderMap) -> Recorded {
    let bare = headers.keys().fold(recorded, |recorded, name| {
        recorded.without_header(name.as_str())
    });
    let lists = headers.get_all(CONNECTION).iter();
    let of_the_connection: Vec<_> = lists
        .flat_map(|list| list.as_bytes().split(|byte| *byte == b','))
        .map(|name| name.trim_ascii().to_ascii_lowercase())
        .collect();
    headers
        .iter()
        .filter(|(name, _)| {
            !of_the_connection
                .iter()
                .any(|of| of == name.as_str().as_bytes())
        })
        .fold(bare, |recorded, (name, value)| {
            recorded.with_header(name.as_str(), value.as_bytes())
        })
}
