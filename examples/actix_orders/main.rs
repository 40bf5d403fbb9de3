//! The order server on actix-web. What it answers is described in `src/orders/mod.rs`.
//!
//! How to run: `cargo run -p effectively-examples --bin actix_orders -- --listen 127.0.0.1:8080 --database-url sqlite:orders.db`

#![expect(clippy::print_stdout, reason = "the address is for whoever started it")]

use std::{
    error::Error,
    future::{Ready, ready},
    io,
    net::SocketAddr,
};

use actix_web::{
    App, FromRequest, HttpRequest, HttpResponse, HttpServer, ResponseError,
    dev::Payload,
    http::{
        StatusCode,
        header::{self, HeaderMap, HeaderValue},
    },
    web::{self, Json},
};
use effectively::{Emit, IdempotencyKey, Ledger, idempotent, outbox};
use effectively_examples::orders::{self, AnyLedger, OrderError, Orders, PlaceOrder, Receipt};
use serde_json::Value;
use sqlx::{MySqlConnection, PgConnection, SqliteConnection};

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
    ledger: Ledger<C::Db>,
    user: User,
) -> Result<Json<Vec<Receipt>>, ApiError> {
    Ok(Json(C::orders_of(ledger.pool(), &user.0).await?))
}

async fn list_events<C: Orders>(ledger: Ledger<C::Db>) -> Result<Json<Vec<Value>>, ApiError> {
    Ok(Json(orders::events(&ledger).await?))
}

/// Who calls: an extractor, so that it is asked before the key is, and again on every replay.
struct User(String);

impl FromRequest for User {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let authorization = request.headers().get(header::AUTHORIZATION);
        let user = orders::bearer(authorization.map(HeaderValue::as_bytes));
        ready(user.map(Self).map_err(ApiError))
    }
}

/// The application's error as a response.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
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

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        if let OrderError::Toolkit(error) = &self.0 {
            return error.error_response();
        }
        let mut response = HttpResponse::build(self.status_code());
        response.content_type("application/problem+json");
        if self.0.status() == 503 {
            response.insert_header((header::RETRY_AFTER, "1"));
        }
        response.body(self.0.problem())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (args, ledger) = orders::start().await?;
    match ledger {
        AnyLedger::Postgres(ledger) => serve::<PgConnection>(args.listen, ledger).await?,
        AnyLedger::MySql(ledger) => serve::<MySqlConnection>(args.listen, ledger).await?,
        AnyLedger::Sqlite(ledger) => serve::<SqliteConnection>(args.listen, ledger).await?,
    }
    Ok(())
}

async fn serve<C: Orders>(listen: SocketAddr, ledger: Ledger<C::Db>) -> io::Result<()> {
    let app = move || {
        App::new()
            .app_data(ledger.clone())
            .service(
                web::resource("/orders")
                    .post(place_order::<C>)
                    .get(list_orders::<C>),
            )
            .route("/events", web::get().to(list_events::<C>))
            .route("/healthz", web::get().to(HttpResponse::Ok))
    };
    let server = HttpServer::new(app).bind(listen)?;
    for address in server.addrs() {
        println!("listening on http://{address}");
    }
    server.shutdown_signal(orders::shutdown()).run().await
}
