//! actix-web: the ledger and the key are extractors, the outcome and both kinds of failure are responses.
//!
//! It speaks version 0.2 of the `http` crate, so its statuses and headers are recorded here once more.

use std::{future, mem, pin::Pin};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse, Responder, ResponseError,
    body::{BoxBody, MessageBody},
    dev::Payload,
    error::{ErrorInternalServerError, ErrorUnsupportedMediaType},
    http::StatusCode,
    http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    web::{Bytes, Data, Json},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Exclude, Fingerprinted, RequestContent, ViaHead, ViaJson, ViaResponse, ViaStatus, WithStatus,
    header, media, response,
};
use crate::{
    engine::Ledger,
    error::{Error, ErrorKind},
    handler::{Failure, IdempotencyKey, Outcome, Replay, from_json},
    model::Recorded,
    store::Dialect,
};

/// From the data of the app, added as `.app_data(ledger)` or as `.app_data(web::Data::new(ledger))`.
impl<DB: Dialect> FromRequest for Ledger<DB> {
    type Error = actix_web::Error;
    type Future = future::Ready<Result<Self, actix_web::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let shared = || request.app_data::<Data<Self>>().map(|data| data.get_ref());
        let ledger = request.app_data::<Self>().or_else(shared).cloned();
        let missing = "the app has no `Ledger` of this database: add `.app_data(ledger)`";
        future::ready(ledger.ok_or_else(|| ErrorInternalServerError(missing)))
    }
}

/// From the `Idempotency-Key` header. Missing or malformed, it is refused with 400.
impl FromRequest for IdempotencyKey {
    type Error = Error;
    type Future = future::Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let lines = request.headers().get_all(header::NAME);
        future::ready(header::idempotency_key(lines.map(HeaderValue::as_bytes)))
    }
}

/// Reads the body within the limit of `PayloadConfig`, and lets `T` read it again. A compressed body is refused with 415.
impl<T: FromRequest, X: Exclude> FromRequest for Fingerprinted<T, X> {
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, actix_web::Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = Bytes::from_request(request, payload);
        let request = request.clone();
        Box::pin(async move {
            let headers = request.headers();
            let mut codings = headers.get_all(CONTENT_ENCODING);
            if codings.any(|coding| coding != "identity") {
                return Err(ErrorUnsupportedMediaType("send the body uncompressed"));
            }
            let body = body.await?;
            let content = RequestContent::new(
                request.method().as_str(),
                request.uri().path(),
                request.uri().query(),
                headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes),
                &body,
            );
            let again = T::from_request(&request, &mut Payload::from(body));
            Ok(Self(again.await.map_err(Into::into)?, content))
        })
    }
}

/// The recorded status, kept headers and body. A replay says so, and no cache may keep it.
///
/// Without a recorded status a response is 200 and a refusal 422.
impl<R> Responder for Outcome<R> {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        answer(response::of_outcome(&self))
    }
}

/// Not a `ResponseError`, so that a handler's error may also be an `actix_web::Error`.
impl<E: Into<Self>> From<Failure<E>> for actix_web::Error {
    fn from(failure: Failure<E>) -> Self {
        match failure {
            Failure::Handler(error) => error.into(),
            Failure::Toolkit(error) => error.into(),
        }
    }
}

/// RFC 9457 problem+json.
impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        self.error_response().status()
    }

    fn error_response(&self) -> HttpResponse {
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
impl Replay<ViaResponse> for HttpResponse {
    fn record(&mut self) -> Result<Recorded, Error> {
        let (head, body) = mem::replace(self, Self::new(self.status())).into_parts();
        let bytes = body.try_into_bytes().map_err(|_| ErrorKind::Streaming)?;
        *self = head.set_body(BoxBody::new(bytes.clone()));
        let headers = newer(self.headers());
        Ok(media::record(self.status(), &headers, bytes.into()))
    }

    fn restore(recorded: &Recorded) -> Result<Self, Error> {
        Ok(answer(media::restore(recorded)))
    }
}

/// No body and no header, so nothing has to be bound as payload.
impl Replay<ViaStatus> for StatusCode {
    fn record(&mut self) -> Result<Recorded, Error> {
        Ok(Recorded::success(Vec::new()).with_status(self.as_u16()))
    }

    fn restore(recorded: &Recorded) -> Result<Self, Error> {
        http::StatusCode::restore(recorded).map(older)
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
        Ok(media::with_headers(recorded, &newer(&self.1)))
    }

    fn restore(recorded: &Recorded) -> Result<Self, Error> {
        let head = <(http::StatusCode, http::HeaderMap, R)>::restore(recorded)?;
        Ok((older(head.0), older_headers(&head.1), head.2))
    }
}

fn answer(response: http::Response<Vec<u8>>) -> HttpResponse {
    let (head, body) = response.into_parts();
    let mut answer = HttpResponse::with_body(older(head.status), BoxBody::new(body));
    *answer.headers_mut() = older_headers(&head.headers);
    answer
}

fn older(status: http::StatusCode) -> StatusCode {
    StatusCode::from_u16(status.as_u16()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn older_headers(headers: &http::HeaderMap) -> HeaderMap {
    let older = headers.iter().map(|(name, value)| {
        let name = HeaderName::try_from(name.as_str()).ok()?;
        Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    });
    older.flatten().collect()
}

fn newer(headers: &HeaderMap) -> http::HeaderMap {
    let newer = headers.iter().map(|(name, value)| {
        let name = http::HeaderName::try_from(name.as_str()).ok()?;
        Some((name, http::HeaderValue::from_bytes(value.as_bytes()).ok()?))
    });
    newer.flatten().collect()
}
