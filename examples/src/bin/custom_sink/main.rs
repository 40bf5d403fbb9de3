//! A sink of one's own: a journal on disk, and the suite of tests that every sink has to pass.
//!
//! How to run: `cargo run -p effectively-examples --bin custom_sink`; the suite, which is in `tests.rs`, with
//! `cargo test -p effectively-examples --bin custom_sink`.
//!
//! What to try: in `journal.rs` write `Published` instead of `Held`, and see which test notices.

#![expect(clippy::print_stdout, reason = "a program that shows something")]

mod journal;
#[cfg(test)]
mod tests;

use std::{error::Error, time::Duration};

use effectively::{Emit, Event, Ledger, Relay, idempotent, outbox};
use serde::Serialize;
use sqlx::SqliteConnection;
use tokio::{sync::oneshot, time::sleep};

use journal::Journal;

#[idempotent(key = "{customer}/{number}")]
#[outbox]
async fn place_order(
    tx: &mut SqliteConnection,
    customer: &str,
    number: u32,
    note: String,
) -> sqlx::Result<Emit<()>> {
    sqlx::query("insert into orders (customer, number, note) values (?, ?, ?)")
        .bind(customer)
        .bind(number)
        .bind(&note)
        .execute(&mut *tx)
        .await?;
    let customer = customer.to_owned();
    Ok(Emit::new(()).event(OrderPlaced {
        customer,
        number,
        note,
    }))
}

#[derive(Serialize, Event)]
#[event(topic = "orders", name = "order.placed.v1", key = "{customer}")]
struct OrderPlaced {
    customer: String,
    number: u32,
    note: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (folder, pool) = effectively_examples::temporary_sqlite().await?;
    sqlx::raw_sql("create table orders (customer text, number integer, note text)")
        .execute(&pool)
        .await?;
    let ledger = Ledger::new(pool);
    ledger.migrate().await?;
    for number in 1..=4 {
        for customer in ["ann", "bob"] {
            let wordy = (customer, number) == ("bob", 2); // more than a line of the journal takes
            let note = if wordy {
                "please ".repeat(1000)
            } else {
                "-".to_owned()
            };
            let placed = place_order(ledger.clone(), customer, number, note).await?;
            placed.into_result()?;
        }
    }

    let path = folder.path().join("orders.journal");
    let relay = Relay::builder(ledger.clone())
        .route("orders", Journal::open(&path)?)
        .build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let relay = tokio::spawn(relay.run(async { _ = stopped.await }));
    while ledger.outbox().pending().await? > 0 {
        sleep(Duration::from_millis(20)).await;
    }
    drop(stop);
    relay.await??;

    let journal = std::fs::read_to_string(&path)?;
    print!("{journal}");
    for dead in ledger.outbox().dead_letters(0, 10).await? {
        let customer = dead.partition_key.unwrap_or_default();
        println!("dead letter of {customer}: {}", dead.error);
    }
    let dead = ledger.outbox().backlog().await?.dead_letters;
    let (orders,): (i64,) = sqlx::query_as("select count(*) from orders")
        .fetch_one(ledger.pool())
        .await?;
    let lines = journal.lines().count();
    println!("\ncustom_sink: {orders} orders, {lines} lines in the journal, {dead} dead letter");
    Ok(())
}
