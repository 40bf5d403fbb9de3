//! The other company's server: it checks the signature of each webhook, and packs one parcel per event.

use std::{
    error::Error,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Bytes,
    extract::{FromRef, FromRequest, Request},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use effectively::{Ledger, idempotent};
use effectively_examples::shop::AppError;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use crate::OrderPlaced;

/// A webhook that comes again is answered with the recorded 200, and packs nothing.
#[idempotent(key = "{delivery.id}")]
async fn receive(tx: &mut SqliteConnection, delivery: Delivery) -> Result<StatusCode, AppError> {
    sqlx::query("insert into parcels (order_id) values (?)")
        .bind(delivery.order.order_id)
        .execute(&mut *tx)
        .await?;
    Ok(StatusCode::OK)
}

/// A webhook whose signature is right.
struct Delivery {
    id: String,
    order: OrderPlaced,
}

impl FromRequest<Receiver> for Delivery {
    type Rejection = StatusCode;

    async fn from_request(request: Request, receiver: &Receiver) -> Result<Self, StatusCode> {
        let head = request.headers().clone();
        // The bytes as they came: JSON that was read and written again has another signature.
        let body = Bytes::from_request(request, receiver)
            .await
            .map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
        // Also refuses what is older than five minutes, so that nobody can store a webhook and play it later.
        let verified = receiver.secret.verify(&body, &head);
        verified.map_err(|_| StatusCode::UNAUTHORIZED)?;
        // This header is signed; `Idempotency-Key`, with the same id, is not.
        let id = head["webhook-id"].to_str();
        let order = serde_json::from_slice(&body);
        Ok(Self {
            id: id.map_err(|_| StatusCode::BAD_REQUEST)?.to_owned(),
            order: order.map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)?,
        })
    }
}

#[derive(Clone)]
struct Receiver {
    ledger: Ledger<Sqlite>,
    secret: Arc<standardwebhooks::Webhook>,
}

impl FromRef<Receiver> for Ledger<Sqlite> {
    fn from_ref(receiver: &Receiver) -> Self {
        receiver.ledger.clone()
    }
}

pub async fn app(pool: SqlitePool, secret: &str) -> Result<Router, Box<dyn Error>> {
    sqlx::raw_sql("create table parcels (order_id integer)")
        .execute(&pool)
        .await?;
    let ledger = Ledger::new(pool);
    ledger.migrate().await?;
    let secret = Arc::new(standardwebhooks::Webhook::new(secret)?);
    Ok(Router::new()
        .route("/hooks", post(receive))
        .layer(middleware::from_fn(trouble))
        .with_state(Receiver { ledger, secret }))
}

static DELIVERIES: AtomicUsize = AtomicUsize::new(0);

pub fn deliveries() -> usize {
    DELIVERIES.load(Ordering::Relaxed)
}

/// For the demonstration: the server is down at first. Later it packs the parcel and answers that it did not, and one answer
/// gets lost.
async fn trouble(request: Request, next: Next) -> Response {
    match DELIVERIES.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        3 => {
            next.run(request).await;
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        6 => {
            next.run(request).await;
            pending().await // the sender hangs up when it has waited long enough
        }
        _ => next.run(request).await,
    }
}
