//! Without macros: `Ledger::run` takes a key and a closure, which may borrow what is around it.
//!
//! How to run: `cargo run -p effectively-examples --bin macro_free`
//!
//! What to try: change the cart before the repeat: the fingerprint refuses it.

#![expect(clippy::print_stdout, reason = "a program that shows something")]

use std::{convert::Infallible, error::Error, time::Duration};

use effectively::{Emit, Envelope, Event, Key, Ledger};
use serde::Serialize;
use sqlx::SqliteConnection;

#[derive(Serialize, Event)]
#[event(topic = "orders", name = "order.placed.v1", key = "{order_id}")]
struct OrderPlaced {
    order_id: i64,
    items: usize,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (_folder, pool) = effectively_examples::temporary_sqlite().await?;
    let schema = "create table visits (page text primary key, count integer not null);
                  create table lines (order_id integer, item text)";
    sqlx::raw_sql(schema).execute(&pool).await?;
    let ledger = Ledger::new(pool);
    ledger.migrate().await?;

    // The short form: a key and a body.
    for visit in ["v1", "v1", "v2"] {
        let outcome = ledger
            .run(
                Key::new("visit", &[&"home", &visit])?,
                async |tx: &mut SqliteConnection| {
                    let count = "insert into visits values ('home', 1)
                             on conflict do update set count = count + 1 returning count";
                    sqlx::query_scalar::<_, i64>(count).fetch_one(tx).await
                },
            )
            .await?;
        let how = if outcome.is_replay() {
            "replayed"
        } else {
            "executed"
        };
        println!(
            "visit {visit}       {how}: count {}",
            outcome.into_result()?
        );
    }

    // The long form: options and events. The body borrows the cart.
    let cart = vec!["a lamp", "a desk", "a chair"];
    for _ in 0..2 {
        let outcome = ledger
            .call(Key::new("checkout", &[&"alice", &"cart-17"])?)
            .fingerprint(&cart)?
            .retention(Duration::from_secs(7 * 24 * 60 * 60))
            .run_with_events(async |tx: &mut SqliteConnection| {
                let order_id: i64 =
                    sqlx::query_scalar("select coalesce(max(order_id), 0) + 1 from lines")
                        .fetch_one(&mut *tx)
                        .await?;
                for item in &cart {
                    let insert = sqlx::query("insert into lines values (?, ?)")
                        .bind(order_id)
                        .bind(item);
                    insert.execute(&mut *tx).await?;
                }
                let placed = OrderPlaced {
                    order_id,
                    items: cart.len(),
                };
                Ok::<_, sqlx::Error>(Emit::new(order_id).event(placed))
            })
            .await?;
        let how = if outcome.is_replay() {
            "replayed"
        } else {
            "executed"
        };
        println!("checkout       {how}: order {}", outcome.into_result()?);
    }

    let publish = async |event: &Envelope| {
        println!(
            "event          {} {}",
            event.name,
            String::from_utf8_lossy(&event.data)
        );
        Ok::<_, Infallible>(())
    };
    let published = ledger.outbox().drain(publish).await?;
    println!("\n5 calls with 3 keys, {published} event published");
    Ok(())
}
