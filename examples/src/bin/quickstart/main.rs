//! A web shop that takes each order once, whatever its clients and the network do.
//!
//! How to run: `cargo run -p effectively-examples --bin quickstart`. Nothing else is needed: the database is SQLite in a
//! temporary file, and the requests are real HTTP requests to a real axum server in this process.
//!
//! What to try: `-- --serve` after the command keeps the server up and prints a `curl` line. Or take `fingerprint(order)` out
//! of the attribute and see the 422 become a replay; or add `wait = "0s"`: who comes while the first one works is told 409.

mod client;
mod report;
mod story;
mod trouble;

use std::{error::Error, net::SocketAddr, process::ExitCode};

use axum::{Json, Router, http::StatusCode, routing::post};
use effectively::{Emit, Event, IdempotencyKey, Ledger, idempotent, outbox};
use effectively_examples::shop::{AppError, PlaceOrder, Receipt, User};
use serde::Serialize;
use sqlx::{Sqlite, SqliteConnection};
use tokio::net::TcpListener;

/// The handler: its `tx` is an open transaction, and becomes a [`Ledger`] from the router's state.
#[idempotent(
    key = "{user.id}/{idempotency_key}",
    fingerprint(order),
    retention = "24h"
)]
#[outbox]
async fn place_order(
    tx: &mut SqliteConnection,
    user: User,
    idempotency_key: IdempotencyKey,
    Json(order): Json<PlaceOrder>,
) -> Result<Emit<(StatusCode, Json<Receipt>)>, AppError> {
    let insert = "insert into orders (customer, request, item) values (?, ?, ?) returning id";
    let order_id: i64 = sqlx::query_scalar(insert)
        .bind(&user.id)
        .bind(IdempotencyKey::expose(&idempotency_key))
        .bind(&order.item)
        .fetch_one(&mut *tx)
        .await?;
    trouble::strike(&order.item).await; // for the demonstration: some first attempts go wrong here
    let receipt = (StatusCode::CREATED, Json(Receipt { order_id }));
    Ok(Emit::new(receipt).event(OrderPlaced { order_id }))
}

/// What others have to be told, stored in the same transaction.
#[derive(Serialize, Event)]
#[event(topic = "orders", name = "order.placed.v1", key = "{order_id}")]
struct OrderPlaced {
    order_id: i64,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    trouble::say_panics_in_one_line();
    let (_folder, pool) = effectively_examples::temporary_sqlite().await?;
    sqlx::raw_sql("create table orders (id integer primary key, customer text not null, request text not null, item text not null)")
        .execute(&pool)
        .await?;
    let ledger = Ledger::new(pool);
    ledger.migrate().await?;

    let address = serve(ledger.clone()).await?;
    report::heading(address);
    let story = story::tell(address, ledger.pool()).await?;
    report::requests(&story.rows);
    report::orders(ledger.pool()).await?;
    let published = report::drain(&ledger).await?;
    let verdict = report::Verdict::of(ledger.pool(), &story.acknowledged, &published).await?;
    report::last_line(&verdict);

    if std::env::args().any(|argument| argument == "--serve") {
        report::serve(address, &ledger).await?;
    }
    Ok(verdict.exit_code())
}

/// Starts the server on a free port.
async fn serve(ledger: Ledger<Sqlite>) -> Result<SocketAddr, Box<dyn Error>> {
    let app = Router::new()
        .route("/orders", post(place_order))
        .with_state(ledger);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
