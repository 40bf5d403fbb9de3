//! The handlers and the server on actix-web.

use std::thread;

use actix_web::{
    App, HttpResponse, HttpServer, ResponseError,
    body::BoxBody,
    http::{
        StatusCode,
        header::{HeaderMap, HeaderName, HeaderValue},
    },
    web::{self, Bytes, Json, Path},
};
use effectively::{IdempotencyKey, Ledger, idempotent, web::Fingerprinted};
use futures_util::stream;
use sqlx::{Sqlite, SqliteConnection};
use tokio::runtime::Runtime;

use crate::shop::{self, AppError, BODY, HEAD, HEADERS, Place, SentAt, Server};

impl ResponseError for AppError {
    fn status_code(&self) -> StatusCode {
        StatusCode::IM_A_TEAPOT
    }
}

/// Answers with whatever the path asks for.
#[idempotent(key = "{at.0}/{at.1}/{idempotency_key}")]
async fn whole(
    tx: &mut SqliteConnection,
    at: Path<(String, String)>,
    idempotency_key: IdempotencyKey,
) -> Result<HttpResponse, AppError> {
    shop::write(tx).await?;
    let of = |body: String| HttpResponse::with_body(StatusCode::OK, BoxBody::new(body));
    let piece = || Ok::<_, AppError>(Bytes::from_static(b"x"));
    Ok(match at.1.as_str() {
        "headers" => {
            let mut response = HttpResponse::with_body(StatusCode::OK, BoxBody::new(BODY));
            *response.status_mut() = StatusCode::NON_AUTHORITATIVE_INFORMATION;
            for (name, value) in HEADERS {
                let value = HeaderValue::from_bytes(value).expect("a value");
                let name = HeaderName::from_static(name);
                response.headers_mut().append(name, value);
            }
            response
        }
        "text" => of("plain".to_owned()),
        "empty" => HttpResponse::NoContent().finish(),
        "stream" => HttpResponse::Ok().streaming(stream::iter([piece(), piece()])),
        "endless" => HttpResponse::Ok().streaming(stream::repeat_with(piece)),
        "large" => of(shop::large()),
        status => {
            let mut response = of(shop::run());
            let status = status.parse().map(StatusCode::from_u16);
            *response.status_mut() = status.expect("a number").expect("a status");
            response
        }
    })
}

#[idempotent(key = "{user.0}/{idempotency_key}")]
async fn head(
    _tx: &mut SqliteConnection,
    user: Path<(String,)>,
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
async fn pair(
    _tx: &mut SqliteConnection,
    user: Path<(String,)>,
    idempotency_key: IdempotencyKey,
) -> Result<(StatusCode, Json<(u8, Option<u8>)>), AppError> {
    Ok((StatusCode::CREATED, Json((1, None))))
}

#[idempotent(key = "{user.0}/{idempotency_key}")]
async fn bare(
    tx: &mut SqliteConnection,
    user: Path<(String,)>,
    idempotency_key: IdempotencyKey,
) -> Result<StatusCode, AppError> {
    shop::write(tx).await?;
    Ok(StatusCode::NOT_FOUND)
}

#[idempotent(key = "{user.0}/{idempotency_key}")]
async fn unit(
    tx: &mut SqliteConnection,
    user: Path<(String,)>,
    idempotency_key: IdempotencyKey,
) -> Result<(), AppError> {
    shop::write(tx).await
}

#[idempotent(key = "{user.0}/{idempotency_key}", fingerprint(request))]
async fn same(
    tx: &mut SqliteConnection,
    user: Path<(String,)>,
    idempotency_key: IdempotencyKey,
    Fingerprinted(Json(cmd), request): Fingerprinted<Json<Place>, SentAt>,
) -> Result<Json<String>, AppError> {
    shop::write(tx).await?;
    Ok(Json(cmd.item))
}

/// In a thread of its own, since its end has to be waited for.
pub fn start(ledger: Ledger<Sqlite>) -> Server {
    let listener = shop::listener();
    let address = listener.local_addr().expect("its address");
    let app = move || {
        App::new()
            .app_data(ledger.clone())
            .route("/{user}/whole/{kind}", web::post().to(whole))
            .route("/{user}/head", web::post().to(head))
            .route("/{user}/pair", web::post().to(pair))
            .route("/{user}/bare", web::post().to(bare))
            .route("/{user}/unit", web::post().to(unit))
            .route("/{user}/same", web::post().to(same))
    };
    let server = HttpServer::new(app).workers(1).disable_signals();
    let server = server.listen(listener).expect("a server").run();
    let handle = server.handle();
    let mut serving = Some(thread::spawn(|| {
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on(server).expect("a server that serves");
    }));
    let stop = move || {
        // Tells it; the future would wait.
        drop(handle.stop(false));
        let ended = serving.take().map(thread::JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))), "the server ends");
    };
    Server {
        address,
        stop: Box::new(stop),
    }
}
