//! The handlers and the server on poem.

use effectively::{IdempotencyKey, Ledger, idempotent, web::Fingerprinted};
use futures_util::stream;
use poem::{
    Body, EndpointExt, Response, Route,
    error::ResponseError,
    handler,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    listener::TcpAcceptor,
    post,
    web::{Json, Path},
};
use sqlx::{Sqlite, SqliteConnection};

use crate::shop::{self, AppError, BODY, HEAD, HEADERS, Place, SentAt, Server};

impl ResponseError for AppError {
    fn status(&self) -> StatusCode {
        StatusCode::IM_A_TEAPOT
    }
}

/// Answers with whatever the path asks for.
#[idempotent(key = "{at.0}/{at.1}/{idempotency_key}")]
#[handler]
async fn whole(
    tx: &mut SqliteConnection,
    Path(at): Path<(String, String)>,
    idempotency_key: IdempotencyKey,
) -> Result<Response, AppError> {
    shop::write(tx).await?;
    let of = |body: Body| Response::builder().body(body);
    let piece = || Ok::<_, std::io::Error>("x");
    Ok(match at.1.as_str() {
        "headers" => {
            let mut response = Response::builder().body(BODY);
            response.set_status(StatusCode::NON_AUTHORITATIVE_INFORMATION);
            for (name, value) in HEADERS {
                let value = HeaderValue::from_bytes(value).expect("a value");
                response.headers_mut().append(name, value);
            }
            response
        }
        "text" => of("plain".into()),
        "empty" => Response::builder().status(StatusCode::NO_CONTENT).finish(),
        "stream" => of(Body::from_bytes_stream(stream::iter([piece(), piece()]))),
        "endless" => of(Body::from_bytes_stream(stream::repeat_with(piece))),
        "large" => of(shop::large().into()),
        status => {
            let mut response = of(shop::run().into());
            let status = status.parse().map(StatusCode::from_u16);
            response.set_status(status.expect("a number").expect("a status"));
            response
        }
    })
}

#[idempotent(key = "{user}/{idempotency_key}")]
#[handler]
async fn head(
    _tx: &mut SqliteConnection,
    Path(user): Path<String>,
    idempotency_key: IdempotencyKey,
) -> Result<(StatusCode, HeaderMap, Json<(u8, Option<u8>)>), AppError> {
    let headers = HEAD.map(|(name, value)| {
        let name = HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    });
    let headers = headers.into_iter().collect();
    Ok((StatusCode::ACCEPTED, headers, Json((1, None))))
}

#[idempotent(key = "{user}/{idempotency_key}")]
#[handler]
async fn pair(
    _tx: &mut SqliteConnection,
    Path(user): Path<String>,
    idempotency_key: IdempotencyKey,
) -> Result<(StatusCode, Json<(u8, Option<u8>)>), AppError> {
    Ok((StatusCode::CREATED, Json((1, None))))
}

#[idempotent(key = "{user}/{idempotency_key}")]
#[handler]
async fn bare(
    tx: &mut SqliteConnection,
    Path(user): Path<String>,
    idempotency_key: IdempotencyKey,
) -> Result<StatusCode, AppError> {
    shop::write(tx).await?;
    Ok(StatusCode::NOT_FOUND)
}

#[idempotent(key = "{user}/{idempotency_key}")]
#[handler]
async fn unit(
    tx: &mut SqliteConnection,
    Path(user): Path<String>,
    idempotency_key: IdempotencyKey,
) -> Result<(), AppError> {
    shop::write(tx).await
}

#[idempotent(key = "{user}/{idempotency_key}", fingerprint(request))]
#[handler]
async fn same(
    tx: &mut SqliteConnection,
    Path(user): Path<String>,
    idempotency_key: IdempotencyKey,
    Fingerprinted(Json(cmd), request): Fingerprinted<Json<Place>, SentAt>,
) -> Result<Json<String>, AppError> {
    shop::write(tx).await?;
    Ok(Json(cmd.item))
}

pub fn start(ledger: Ledger<Sqlite>) -> Server {
    let listener = shop::listener();
    let address = listener.local_addr().expect("its address");
    let routes = Route::new()
        .at("/:user/whole/:kind", post(whole))
        .at("/:user/head", post(head))
        .at("/:user/pair", post(pair))
        .at("/:user/bare", post(bare))
        .at("/:user/unit", post(unit))
        .at("/:user/same", post(same))
        .data(ledger);
    let acceptor = TcpAcceptor::from_std(listener).expect("a server");
    let serving = tokio::spawn(poem::Server::new_with_acceptor(acceptor).run(routes));
    Server {
        address,
        stop: Box::new(move || serving.abort()),
    }
}
