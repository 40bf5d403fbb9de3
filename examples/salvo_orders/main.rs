//! The order server on salvo. What it answers is described in `src/orders/mod.rs`.
//!
//! How to run: `cargo run -p effectively-examples --bin salvo_orders -- --listen 127.0.0.1:8080 --database-url sqlite:orders.db`

#![expect(clippy::print_stdout, reason = "the address is for whoever started it")]

use std::{error::Error, marker::PhantomData};

use effectively::{Emit, IdempotencyKey, Ledger, handlers, idempotent, outbox};
use effectively_examples::orders::{self, AnyLedger, OrderError, Orders, PlaceOrder, Receipt};
use salvo::{
    Depot, Extractible, Request, Response, Router, Scribe, Server, Writer, affix_state,
    conn::tcp::TcpAcceptor,
    extract::{JsonBody, Metadata},
    handler,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    writing::Json,
};
use serde_json::Value;
use sqlx::{MySqlConnection, PgConnection, SqliteConnection};
use tokio::net::TcpListener;

/// Place an order. A handler for several databases is a type, as `#[handler]` makes one of a function for one database.
struct Place<C>(PhantomData<fn() -> C>);

#[handlers]
#[handler]
impl<C: Orders> Place<C> {
    /// One order per user and key, whatever clients and network do. `detach`: a client that hangs up does not stop it.
    #[idempotent(
        scope = "place_order",
        key = "{user.0}/{idempotency_key}",
        fingerprint(order.0),
        on_error = "record",
        detach
    )]
    #[outbox]
    async fn handle(
        tx: &mut C,
        user: User,
        idempotency_key: IdempotencyKey,
        order: JsonBody<PlaceOrder>,
    ) -> Result<Emit<(StatusCode, HeaderMap, Json<Receipt>)>, ApiError> {
        let JsonBody(order) = order;
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
}

struct ListOrders<C>(PhantomData<fn() -> C>);

#[handler]
impl<C: Orders> ListOrders<C> {
    async fn handle(ledger: Ledger<C::Db>, user: User) -> Result<Json<Vec<Receipt>>, ApiError> {
        Ok(Json(C::orders_of(ledger.pool(), &user.0).await?))
    }
}

struct ListEvents<C>(PhantomData<fn() -> C>);

#[handler]
impl<C: Orders> ListEvents<C> {
    async fn handle(ledger: Ledger<C::Db>) -> Result<Json<Vec<Value>>, ApiError> {
        Ok(Json(orders::events(&ledger).await?))
    }
}

#[handler]
async fn healthz() -> StatusCode {
    StatusCode::OK
}

/// Who calls: an extractor, so that it is asked before the key is, and again on every replay.
struct User(String);

impl<'ex> Extractible<'ex> for User {
    fn metadata() -> &'static Metadata {
        static METADATA: Metadata = Metadata::new("User");
        &METADATA
    }

    #[expect(refining_impl_trait, reason = "the error may be known")]
    async fn extract(request: &'ex mut Request, _: &'ex mut Depot) -> Result<Self, ApiError> {
        let authorization = request.headers().get(header::AUTHORIZATION);
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

impl Scribe for ApiError {
    fn render(self, response: &mut Response) {
        if let OrderError::Toolkit(error) = self.0 {
            return error.render(response);
        }
        let status = StatusCode::from_u16(self.0.status());
        response.status_code(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        response.body(self.0.problem());
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.0.status() == 503 {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
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
    let server = Server::new(TcpAcceptor::try_from(listener)?);
    let handle = server.handle();
    tokio::spawn(async move {
        orders::shutdown().await;
        handle.stop_graceful(None);
    });
    server.try_serve(router).await?;
    Ok(())
}

fn router<C: Orders>(ledger: Ledger<C::Db>) -> Router {
    Router::new()
        .hoop(affix_state::inject(ledger))
        .push(
            Router::with_path("orders")
                .post(Place::<C>(PhantomData))
                .get(ListOrders::<C>(PhantomData)),
        )
        .push(Router::with_path("events").get(ListEvents::<C>(PhantomData)))
        .push(Router::with_path("healthz").get(healthz))
}
