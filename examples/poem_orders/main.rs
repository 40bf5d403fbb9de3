//! The order server on poem. What it answers is described in `src/orders/mod.rs`.
//!
//! How to run: `cargo run -p effectively-examples --bin poem_orders -- --listen 127.0.0.1:8080 --database-url sqlite:orders.db`

#![expect(clippy::print_stdout, reason = "the address is for whoever started it")]

use std::error::Error;

use effectively::{Emit, IdempotencyKey, Ledger, idempotent, outbox};
use effectively_examples::orders::{self, AnyLedger, OrderError, Orders, PlaceOrder, Receipt};
use poem::{
    EndpointExt, FromRequest, IntoResponse, Request, RequestBody, Response, Route, Server,
    endpoint::{BoxEndpoint, make, make_sync},
    error::ResponseError,
    get,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    listener::TcpAcceptor,
    post,
    web::Json,
};
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

/// In bytes.
const LARGEST_BODY: usize = 2 << 20;

/// `#[handler]` cannot tell the connection from the arguments, so a handler for several databases is called by hand.
async fn post_order<C: Orders>(request: Request) -> poem::Result<Response> {
    let (request, mut body) = request.split();
    let ledger = Ledger::from_request(&request, &mut body).await?;
    let user = User::from_request(&request, &mut body).await?;
    let key = IdempotencyKey::from_request(&request, &mut body).await?;
    // poem's `Json` knows no limit.
    let bytes = body.take()?.into_bytes_limit(LARGEST_BODY).await?;
    let order = Json::from_request(&request, &mut RequestBody::new(bytes.into())).await?;
    let placed = place_order::<C>(ledger, user, key, order);
    Ok(placed.await?.into_response())
}

async fn list_orders<C: Orders>(request: Request) -> poem::Result<Json<Vec<Receipt>>> {
    let ledger = Ledger::<C::Db>::from_request_without_body(&request).await?;
    let user = User::from_request_without_body(&request).await?;
    let orders = C::orders_of(ledger.pool(), &user.0).await;
    Ok(Json(orders.map_err(ApiError::from)?))
}

async fn list_events<C: Orders>(request: Request) -> poem::Result<Json<Vec<Value>>> {
    let ledger = Ledger::<C::Db>::from_request_without_body(&request).await?;
    let events = orders::events(&ledger).await;
    Ok(Json(events.map_err(ApiError)?))
}

/// Who calls: an extractor, so that it is asked before the key is, and again on every replay.
struct User(String);

impl<'a> FromRequest<'a> for User {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let authorization = request.headers().get(header::AUTHORIZATION);
        let user = orders::bearer(authorization.map(HeaderValue::as_bytes));
        Ok(Self(user.map_err(ApiError)?))
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
    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn as_response(&self) -> Response {
        if let OrderError::Toolkit(error) = &self.0 {
            return error.as_response();
        }
        let mut response = Response::builder()
            .status(self.status())
            .content_type("application/problem+json");
        if self.0.status() == 503 {
            response = response.header(header::RETRY_AFTER, "1");
        }
        response.body(self.0.problem())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (args, ledger) = orders::start().await?;
    let routes = match ledger {
        AnyLedger::Postgres(ledger) => routes::<PgConnection>(ledger),
        AnyLedger::MySql(ledger) => routes::<MySqlConnection>(ledger),
        AnyLedger::Sqlite(ledger) => routes::<SqliteConnection>(ledger),
    };
    let listener = TcpListener::bind(args.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?)
        .run_with_graceful_shutdown(routes, orders::shutdown(), None)
        .await?;
    Ok(())
}

fn routes<C: Orders>(ledger: Ledger<C::Db>) -> BoxEndpoint<'static> {
    Route::new()
        .at(
            "/orders",
            post(make(post_order::<C>)).get(make(list_orders::<C>)),
        )
        .at("/events", get(make(list_events::<C>)))
        .at("/healthz", get(make_sync(|_| StatusCode::OK)))
        .data(ledger)
        .boxed()
}
