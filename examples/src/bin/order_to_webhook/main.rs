//! From an order to another company's server: outbox, relay, a signed webhook, and a receiver that acts once per event.
//!
//! How to run: `cargo run -p effectively-examples --bin order_to_webhook`. Shop and receiver are two axum servers in this
//! process, each with a SQLite file of its own. The receiver fails at first, and later answers 503 after it has acted.
//!
//! What to try: in `receiver.rs` let the `id` of a `Delivery` be a new UUID each time, and see parcels packed twice.

#![expect(clippy::print_stdout, reason = "a program that shows something")]

mod receiver;

use std::{error::Error, net::SocketAddr, process::ExitCode, time::Duration};

use axum::{Json, Router, routing::post};
use effectively::sink::webhook::{Secret, Webhook};
use effectively::{Emit, Event, IdempotencyKey, Ledger, Relay, idempotent, outbox};
use effectively_examples::shop::{AppError, PlaceOrder, Receipt, User};
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use tokio::{net::TcpListener, sync::oneshot, time::sleep};

#[idempotent(key = "{user.id}/{idempotency_key}", fingerprint(order))]
#[outbox]
async fn place_order(
    tx: &mut SqliteConnection,
    user: User,
    idempotency_key: IdempotencyKey,
    Json(order): Json<PlaceOrder>,
) -> Result<Emit<Json<Receipt>>, AppError> {
    let insert = "insert into orders (customer, item) values (?, ?) returning id";
    let order_id: i64 = sqlx::query_scalar(insert)
        .bind(&user.id)
        .bind(&order.item)
        .fetch_one(&mut *tx)
        .await?;
    Ok(Emit::new(Json(Receipt { order_id })).event(OrderPlaced { order_id }))
}

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "orders", name = "order.placed.v1", key = "{order_id}")]
struct OrderPlaced {
    order_id: i64,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"; // yours: out of a vault, another for each receiver
    let (_there, pool) = effectively_examples::temporary_sqlite().await?;
    let receiver = receiver::app(pool.clone(), secret).await?;
    let hooks = format!("http://{}/hooks", serve(receiver).await?);

    let (_here, shop) = effectively_examples::temporary_sqlite().await?;
    sqlx::raw_sql("create table orders (id integer primary key, customer text, item text)")
        .execute(&shop)
        .await?;
    let ledger = Ledger::new(shop.clone());
    ledger.migrate().await?;
    let app = Router::new()
        .route("/orders", post(place_order))
        .with_state(ledger.clone());
    let orders = format!("http://{}/orders", serve(app).await?);

    let sink = Webhook::builder(&hooks, Secret::new(secret)?)
        // Only here, where the receiver is on this machine: others would read along, and a URL that a customer gives
        // could reach into your network.
        .allow_http()
        .allow_internal()
        .timeout(Duration::from_millis(500)) // the default is 10 s: too long for a demonstration
        .build()?;
    let relay = Relay::builder(ledger.clone())
        .route("orders", sink)
        .source("/shop")
        .build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let relay = tokio::spawn(relay.run(async { _ = stopped.await }));

    let client = reqwest::Client::new();
    for number in 0..20 {
        let key = format!("\"order-{}\"", number % 10); // each order is sent twice, as clients do
        let request = client.post(&orders).bearer_auth("ann");
        let item = "tea".to_owned();
        let request = request.header("Idempotency-Key", key);
        let answer = request.json(&PlaceOrder { item }).send().await?;
        answer.error_for_status()?;
    }
    println!("the shop      20 requests, each order twice");
    while ledger.outbox().pending().await? > 0 {
        sleep(Duration::from_millis(20)).await;
    }
    drop(stop);
    relay.await??;

    let (placed,): (i64,) = sqlx::query_as("select count(*) from orders")
        .fetch_one(&shop)
        .await?;
    let (packed, of): (i64, i64) =
        sqlx::query_as("select count(*), count(distinct order_id) from parcels")
            .fetch_one(&pool)
            .await?;
    let deliveries = receiver::deliveries();
    println!("the receiver  {deliveries} deliveries, {packed} parcels for {of} orders\n");
    println!("order_to_webhook: {placed} orders, {deliveries} deliveries, {packed} effects");
    let once = (packed, of) == (placed, placed);
    Ok(ExitCode::from(u8::from(!once)))
}

/// Starts a server on a free port.
async fn serve(app: Router) -> Result<SocketAddr, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
