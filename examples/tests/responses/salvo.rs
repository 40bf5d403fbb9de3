//! The handlers and the server on salvo.

use effectively::{IdempotencyKey, Ledger, idempotent, web::Fingerprinted};
use futures_util::stream;
use salvo::{
    Response, Router, Scribe, Writer, affix_state,
    conn::tcp::TcpAcceptor,
    extract::{JsonBody, PathParam},
    handler,
    http::{HeaderMap, HeaderValue, ResBody, StatusCode, header::HeaderName},
    writing::Json,
};
use sqlx::{Sqlite, SqliteConnection};
use tokio::net::TcpListener;

use crate::shop::{self, AppError, BODY, HEAD, HEADERS, Place, SentAt, Server};

impl Scribe for AppError {
    fn render(self, response: &mut Response) {
        response.status_code(StatusCode::IM_A_TEAPOT);
    }
}

/// Answers with whatever the path asks for.
#[idempotent(key = "{user.0}/{kind.0}/{idempotency_key}")]
#[handler]
async fn whole(
    tx: &mut SqliteConnection,
    user: PathParam<String>,
    kind: PathParam<String>,
    idempotency_key: IdempotencyKey,
) -> Result<Response, AppError> {
    shop::write(tx).await?;
    let mut response = Response::new();
    let piece = || Ok::<_, std::io::Error>("x");
    match kind.0.as_str() {
        "headers" => {
            response.status_code(StatusCode::NON_AUTHORITATIVE_INFORMATION);
            response.body(BODY);
            for (name, value) in HEADERS {
                let value = HeaderValue::from_bytes(value).expect("a value");
                response.headers_mut().append(name, value);
            }
        }
        "text" => drop(response.body("plain")),
        "empty" => drop(response.status_code(StatusCode::NO_CONTENT)),
        "stream" => drop(response.body(ResBody::stream(stream::iter([piece(), piece()])))),
        "endless" => drop(response.body(ResBody::stream(stream::repeat_with(piece)))),
        "large" => drop(response.body(shop::large())),
        status => {
            let status = status.parse().map(StatusCode::from_u16);
            response.status_code(status.expect("a number").expect("a status"));
            response.body(shop::run());
        }
    }
    Ok(response)
}

#[idempotent(key = "{user.0}/{idempotency_key}")]
#[handler]
async fn head(
    _tx: &mut SqliteConnection,
    user: PathParam<String>,
    idempotency_key: IdempotencyKey,
) -> Result<(StatusCode, HeaderMap, Json<(u8, Option<u8>)>), AppError> {
    let headers = HEAD.map(|(name, value)| {
        let name = HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    });
    let headers = headers.into_iter().collect();
    Ok((StatusCode::ACCEPTED, headers, Json((1, None))))
}

#[idempotent(key = "{user.0}/{idempotency_key}")]
#[handler]
async fn pair(
    _tx: &mut SqliteConnection,
    user: PathParam<String>,
    idempotency_key: IdempotencyKey,
) -> Result<(StatusCode, Json<(u8, Option<u8>)>), AppError> {
    Ok((StatusCode::CREATED, Json((1, None))))
}

#[idempotent(key = "{user.0}/{idempotency_key}")]
#[handler]
async fn bare(
    tx: &mut SqliteConnection,
    user: PathParam<String>,
    idempotency_key: IdempotencyKey,
) -> Result<StatusCode, AppError> {
    shop::write(tx).await?;
    Ok(StatusCode::NOT_FOUND)
}

#[idempotent(key = "{user.0}/{idempotency_key}")]
#[handler]
async fn unit(
    tx: &mut SqliteConnection,
    user: PathParam<String>,
    idempotency_key: IdempotencyKey,
) -> Result<(), AppError> {
    shop::write(tx).await
}

#[idempotent(key = "{user.0}/{idempotency_key}", fingerprint(request.1))]
#[handler]
async fn same(
    tx: &mut SqliteConnection,
    user: PathParam<String>,
    idempotency_key: IdempotencyKey,
    request: Fingerprinted<JsonBody<Place>, SentAt>,
) -> Result<Json<String>, AppError> {
    shop::write(tx).await?;
    let Fingerprinted(JsonBody(cmd), _) = request;
    Ok(Json(cmd.item))
}

pub fn start(ledger: Ledger<Sqlite>) -> Server {
    let listener = shop::listener();
    let address = listener.local_addr().expect("its address");
    let at = Router::with_path;
    let router = Router::with_path("{user}")
        .hoop(affix_state::inject(ledger))
        .push(at("whole/{kind}").post(whole))
        .push(at("head").post(head))
        .push(at("pair").post(pair))
        .push(at("bare").post(bare))
        .push(at("unit").post(unit))
        .push(at("same").post(same));
    let listener = TcpListener::from_std(listener).expect("a listener");
    let acceptor = TcpAcceptor::try_from(listener).expect("a server");
    let serving = tokio::spawn(salvo::Server::new(acceptor).serve(router));
    Server {
        address,
        stop: Box::new(move || serving.abort()),
    }
}
