//! The order server on tonic. What it answers is described in `src/orders/mod.rs`, and as RPCs in `orders.proto`.
//!
//! How to run: `cargo run -p effectively-examples --bin tonic_orders -- --listen 127.0.0.1:8080 --database-url sqlite:orders.db`

#![expect(clippy::print_stdout, reason = "the address is for whoever started it")]

use std::error::Error;

use axum::{
    extract::Request as HttpRequest,
    http::{HeaderValue, header},
    middleware::{Next, from_fn},
    response::Response as HttpResponse,
};
use effectively::{
    Emit, ErrorKind, Ledger, handlers, idempotent, outbox, web::tonic::RequestExt as _,
};
use effectively_examples::orders::{self, AnyLedger, Fail, OrderError, Orders, PlaceOrder};
use sqlx::{MySqlConnection, PgConnection, SqliteConnection};
use tokio::net::TcpListener;
use tonic::{
    Code, Request, Response, Status, metadata::MetadataValue, service::Routes, transport::Server,
    transport::server::TcpIncoming,
};

#[expect(unused_qualifications, reason = "generated")]
mod api {
    tonic::include_proto!("orders.v1");
}

struct Service<C: Orders> {
    ledger: Ledger<C::Db>,
}

#[handlers(from = self.ledger)]
#[tonic::async_trait]
impl<C: Orders> api::orders_server::Orders for Service<C> {
    /// One order per user and key, whatever clients and network do.
    #[idempotent(
        key = "{request.user()}/{request.idempotency_key()}",
        fingerprint(request.get_ref()),
        on_error = "record",
        transparent
    )]
    #[outbox]
    async fn place_order(
        &self,
        tx: &mut C,
        request: Request<api::PlaceOrderRequest>,
    ) -> Result<Emit<Response<api::Receipt>>, Status> {
        let order = order(request.get_ref()).map_err(Status::invalid_argument)?;
        let order_id = tx.insert(request.user(), &order).await.map_err(status)?;
        order.work().await.map_err(status)?;
        let receipt = order.receipt(order_id);
        let placed = receipt.placed();
        Ok(Emit::new(Response::new(receipt.into())).event(placed))
    }

    async fn list_orders(
        &self,
        request: Request<api::ListOrdersRequest>,
    ) -> Result<Response<api::ListOrdersResponse>, Status> {
        let orders = C::orders_of(self.ledger.pool(), request.user()).await;
        let orders = orders.map_err(status)?.into_iter().map(Into::into);
        Ok(Response::new(api::ListOrdersResponse {
            orders: orders.collect(),
        }))
    }

    async fn list_events(
        &self,
        _: Request<api::ListEventsRequest>,
    ) -> Result<Response<api::ListEventsResponse>, Status> {
        let events = orders::events(&self.ledger).await.map_err(status)?;
        let events = events.iter().map(|event| {
            let text = |name| event[name].as_str().unwrap_or_default().to_owned();
            api::Event {
                id: text("id"),
                topic: text("topic"),
                r#type: text("type"),
                key: text("key"),
                data: event["data"].to_string(),
            }
        });
        Ok(Response::new(api::ListEventsResponse {
            events: events.collect(),
        }))
    }

    async fn health(
        &self,
        _: Request<api::HealthRequest>,
    ) -> Result<Response<api::HealthResponse>, Status> {
        Ok(Response::new(api::HealthResponse {}))
    }
}

fn order(request: &api::PlaceOrderRequest) -> Result<PlaceOrder, &'static str> {
    let fail = match api::Fail::try_from(request.fail) {
        Ok(api::Fail::Unspecified) => None,
        Ok(api::Fail::Error) => Some(Fail::Error),
        Ok(api::Fail::Reject) => Some(Fail::Reject),
        Ok(api::Fail::Panic) => Some(Fail::Panic),
        Err(_) => return Err("`fail` is one of its names"),
    };
    let quantity = u16::try_from(request.quantity).unwrap_or(u16::MAX);
    PlaceOrder::new(request.item.clone(), quantity, request.delay_ms, fail)
}

impl From<orders::Receipt> for api::Receipt {
    fn from(receipt: orders::Receipt) -> Self {
        Self {
            order_id: receipt.order_id,
            item: receipt.item,
            quantity: receipt.quantity.into(),
        }
    }
}

/// The application's error as a status.
fn status(error: impl Into<OrderError>) -> Status {
    let error = error.into();
    let code = match error.status() {
        401 => Code::Unauthenticated,
        402 => Code::FailedPrecondition,
        503 => Code::Unavailable,
        _ => Code::Internal,
    };
    let mut status = Status::new(code, error.to_string());
    let metadata = status.metadata_mut();
    metadata.insert("code", MetadataValue::from_static(error.code()));
    if code == Code::Unavailable {
        metadata.insert("retry-after", MetadataValue::from_static("1"));
    }
    match error {
        OrderError::Toolkit(error) => error.into(),
        _ => status,
    }
}

/// Who calls: asked before the key is, and again on every replay.
#[derive(Clone)]
struct User(String);

trait RequestExt {
    fn user(&self) -> &str;
}

impl<T> RequestExt for Request<T> {
    /// Without [`authenticate`] nobody, and then there is no key either.
    fn user(&self) -> &str {
        self.extensions().get().map_or("", |User(name)| name)
    }
}

/// An interceptor would not know which method is called.
async fn authenticate(mut request: HttpRequest, next: Next) -> HttpResponse {
    let path = request.uri().path();
    if !path.ends_with("/Health") && !path.ends_with("/ListEvents") {
        let authorization = request.headers().get(header::AUTHORIZATION);
        match orders::bearer(authorization.map(HeaderValue::as_bytes)) {
            Ok(user) => request.extensions_mut().insert(User(user)),
            Err(error) => return status(error).into_http(),
        };
    }
    next.run(request).await
}

/// A client that hangs up does not stop its call, and a panic is an answer. What `detach` is for a function.
async fn detach(request: HttpRequest, next: Next) -> HttpResponse {
    let panicked = || effectively::Error::from(ErrorKind::Panicked);
    let call = tokio::spawn(next.run(request)).await;
    call.unwrap_or_else(|_| Status::from(panicked()).into_http())
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
    Server::builder()
        .add_routes(routes)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), orders::shutdown())
        .await?;
    Ok(())
}

fn routes<C: Orders>(ledger: Ledger<C::Db>) -> Routes {
    let service = api::orders_server::OrdersServer::new(Service::<C> { ledger });
    Routes::new(service)
        .into_axum_router()
        .layer(from_fn(detach))
        .layer(from_fn(authenticate))
        .into()
}
