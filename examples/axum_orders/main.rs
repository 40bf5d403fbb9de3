//! The order server on axum. What it answers is described in `src/orders/mod.rs`.
//!
//! How to run: `cargo run -p effectively-examples --bin axum_orders -- --listen 127.0.0.1:8080 --database-url sqlite:orders.db`

#![expect(clippy::print_stdout, reason = "the address is for whoever started it")]

use std::error::Error;

use axum::{
    Json, Router,
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use effectively::{Emit, IdempotencyKey, Ledger, idempotent, outbox};
use effectively_examples::orders::{self, AnyLedger, OrderError, Orders, PlaceOrder, Receipt};
use serde_json::Value;
use sqlx::{MySqlConnection, PgConnection, SqliteConnection};
use tokio::net::TcpListener;

/// One order per user and key, whatever clients and network do. `detach`: a client that hangs up does not stop it.
#[idempotent(
    key = "{user.0}/{idempotency_key}",
    fingerprint(order),
    on_error = "record",
    detach
)]
#[outbox]
async fn place_order<C: Orders>(
    tx: &mut C,
    user: User,
    idempotency_key: IdempotencyKey,
    Json(order): Json<PlaceOrder>,
) -> Result<Emit<(StatusCode, HeaderMap, Json<Receipt>)>, ApiError> {
    let order_id = tx.insert(&user.0, &order).await?;
    order.work().await?;
    let receipt = order.receipt(order_id);
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::try_from(receipt.location()) {
        headers.insert(header::LOCATION, location);
    }
    let placed = receipt.placed();
    Ok(Emit::new((StatusCode::CREATED, headers, Json(receipt))).event(placed))
}

async fn list_orders<C: Orders>(
    State(ledger): State<Ledger<C::Db>>,
    user: User,
) -> Result<Json<Vec<Receipt>>, ApiError> {
    Ok(Json(C::orders_of(ledger.pool(), &user.0).await?))
}

async fn list_events<C: Orders>(
    State(ledger): State<Ledger<C::Db>>,
) -> Result<Json<Vec<Value>>, ApiError> {
    Ok(Json(orders::events(&ledger).await?))
}

/// Who calls: an extractor, so that it is asked before the key is, and again on every replay.
struct User(String);

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let authorization = parts.headers.get(header::AUTHORIZATION);
        Ok(Self(orders::bearer(
            authorization.map(HeaderValue::as_bytes),
        )?))
    }
}

/// The application's error as a response.
#[derive(Debug)]
struct ApiError(OrderError);

impl<E: Into<OrderError>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl effectively::Refusal for ApiError {
    fn refusal(&self) -> Option<effectively::Recorded> {
        self.0.refusal()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let OrderError::Toolkit(error) = self.0 {
            return error.into_response();
        }
        let status = StatusCode::from_u16(self.0.status());
        let mut response = Response::new(self.0.problem().into());
        *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.0.status() == 503 {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (args, ledger) = orders::start().await?;
    let router = match ledger {
        AnyLedger::Postgres(ledger) => router::<PgConnection>(ledger),
        AnyLedger::MySql(ledger) => router::<MySqlConnection>(ledger),
        AnyLedger::Sqlite(ledger) => router::<SqliteConnection>(ledger),
    };
    let listener = TcpListener::bind(args.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router)
        .with_graceful_shutdown(orders::shutdown())
        .await?;
    Ok(())
}

fn router<C: Orders>(ledger: Ledger<C::Db>) -> Router {
    Router::new()
        .route("/orders", post(place_order::<C>).get(list_orders::<C>))
        .route("/events", get(list_events::<C>))
        .route("/healthz", get(|| async { StatusCode::OK }))
        .with_state(ledger)
}
