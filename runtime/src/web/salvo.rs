//! salvo: the ledger and the key are extractors, the outcome and both kinds of failure are responses.

use std::fmt::Debug;

use http::header::CONTENT_TYPE;
use salvo_core::{
    Depot, Extractible, Request, Response, Scribe, Writer, async_trait,
    extract::Metadata,
    http::{ParseError, ResBody, StatusError},
    writing::Json,
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

/// None of the extractors is described by its fields.
static METADATA: Metadata = Metadata::new("");

/// From the depot, put there by `.hoop(affix_state::inject(ledger))`.
impl<'ex, DB: Dialect> Extractible<'ex> for Ledger<DB> {
    fn metadata() -> &'static Metadata {
        &METADATA
    }

    async fn extract(
        _: &'ex mut Request,
        depot: &'ex mut Depot,
    ) -> Result<Self, impl Writer + Send + Debug + 'static> {
        let missing = "the depot has no `Ledger` of this database: add `.hoop(affix_state::inject(ledger))` to the router";
        let error = || StatusError::internal_server_error().brief(missing);
        depot.get_typed::<Self>().cloned().map_err(|_| error())
    }
}

/// From the `Idempotency-Key` header. Missing or malformed, it is refused with 400.
impl<'ex> Extractible<'ex> for IdempotencyKey {
    fn metadata() -> &'static Metadata {
        &METADATA
    }

    async fn extract(
        request: &'ex mut Request,
        _: &'ex mut Depot,
    ) -> Result<Self, impl Writer + Send + Debug + 'static> {
        let lines = request.headers().get_all(header::NAME);
        header::idempotency_key(lines.iter().map(|line| line.as_bytes()))
    }
}

/// Reads the body within the request's limit (`SecureMaxSize`), and lets `T` read it again.
impl<'ex, T: Extractible<'ex> + Send, X: Exclude> Extractible<'ex> for Fingerprinted<T, X> {
    fn metadata() -> &'static Metadata {
        T::metadata()
    }

    fn extract(
        request: &'ex mut Request,
        depot: &'ex mut Depot,
    ) -> impl Future<Output = Result<Self, impl Writer + Send + Debug + 'static>> + Send {
        Self::extract_with_arg(request, depot, "")
    }

    #[expect(
        clippy::manual_async_fn,
        reason = "only so is it `Send` for every `'ex`"
    )]
    fn extract_with_arg(
        request: &'ex mut Request,
        depot: &'ex mut Depot,
        name: &str,
    ) -> impl Future<Output = Result<Self, impl Writer + Send + Debug + 'static>> + Send {
        async move {
            let body = match request.payload().await {
                Ok(body) => body.clone(),
                Err(error) => return Err(Rejection::Body(error)),
            };
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
            let value = T::extract_with_arg(request, depot, name).await;
            let with_content = |value| Self(value, content);
            value.map(with_content).map_err(Rejection::Value)
        }
    }
}

/// Why there is no [`Fingerprinted`]: the body could not be read, or `T` did not like it.
#[derive(Debug)]
enum Rejection<E> {
    Body(ParseError),
    Value(E),
}

#[async_trait]
impl<E: Writer + Send> Writer for Rejection<E> {
    async fn write(self, request: &mut Request, depot: &mut Depot, response: &mut Response) {
        match self {
            Self::Body(error) => error.write(request, depot, response).await,
            Self::Value(error) => error.write(request, depot, response).await,
        }
    }
}

/// The recorded status, kept headers and body. A replay says so, and no cache may keep it.
///
/// Without a recorded status a response is 200 and a refusal 422.
impl<R> Scribe for Outcome<R> {
    fn render(self, response: &mut Response) {
        answer(response::of_outcome(&self), response);
    }
}

#[async_trait]
impl<E: Writer + Send> Writer for Failure<E> {
    async fn write(self, request: &mut Request, depot: &mut Depot, response: &mut Response) {
        match self {
            Self::Handler(error) => error.write(request, depot, response).await,
            Self::Toolkit(error) => error.render(response),
        }
    }
}

/// RFC 9457 problem+json.
impl Scribe for Error {
    fn render(self, response: &mut Response) {
        answer(response::of_error(&self), response);
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
        // Its cookies are headers only now.
        let (head, body) = self.strip_to_hyper().into_parts();
        let bytes = whole(body).ok_or(ErrorKind::Streaming)?;
        let recorded = media::record(head.status, &head.headers, bytes.clone());
        self.merge_hyper(http::Response::from_parts(head, bytes));
        Ok(recorded)
    }

    fn restore(recorded: &Recorded) -> Result<Self, Error> {
        Ok(media::restore(recorded).into())
    }
}

fn whole(body: ResBody) -> Option<Vec<u8>> {
    match body {
        ResBody::None => Some(Vec::new()),
        ResBody::Once(bytes) => Some(bytes.into()),
        ResBody::Chunks(chunks) => Some(Vec::from(chunks).concat()),
        _ => None,
    }
}

/// Stands in place of what a hoop has written so far. An empty body is one, so that no catcher fills it.
fn answer(answer: http::Response<Vec<u8>>, response: &mut Response) {
    let (head, body) = answer.into_parts();
    response.status_code(head.status);
    response.headers.extend(head.headers);
    response.body(body);
}
