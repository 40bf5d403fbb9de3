//! MySQL and MariaDB: orders that lock their items in the client's order, so that they deadlock, and run again.
//!
//! How to run: `cargo run -p effectively-examples --bin mysql -- mysql://user:password@localhost/database`, or with the URL in
//! `DATABASE_URL`. All its tables begin with `example_`, and stay.
//!
//! What to try: take `retries = 20` away and see the deadlock as an error.

#![expect(clippy::print_stdout, reason = "a program that shows something")]

use std::{
    convert::Infallible,
    error::Error,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use effectively::{Emit, Envelope, Event, Ledger, idempotent, outbox};
use serde::Serialize;
use sqlx::{MySqlConnection, MySqlPool};
use tokio::task::JoinSet;
use uuid::Uuid;

static RUNS: AtomicUsize = AtomicUsize::new(0);

/// Takes one of each item. `day` keeps one run of this program apart from the next.
#[idempotent(key = "{day}/{order}", fingerprint(items), retries = 20)]
#[outbox]
async fn reserve(
    tx: &mut MySqlConnection,
    day: Uuid,
    order: u32,
    items: [&'static str; 2],
) -> sqlx::Result<Emit<u32>> {
    RUNS.fetch_add(1, Ordering::Relaxed);
    for item in items {
        let update = "update example_stock set pieces = pieces - 1 where item = ?";
        sqlx::query(update).bind(item).execute(&mut *tx).await?;
        tokio::time::sleep(Duration::from_millis(2)).await; // long enough for others to lock the other item
    }
    Ok(Emit::new(order).events(items.map(|item| Reserved { order, item })))
}

#[derive(Serialize, Event)]
#[event(topic = "stock", name = "stock.reserved.v1", key = "{item}")]
struct Reserved {
    order: u32,
    item: &'static str,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url =
        effectively_examples::database_url("mysql", "mysql://user:password@localhost/database");
    let pool = MySqlPool::connect(&url).await?;
    let schema = "drop table if exists example_stock;
                  create table example_stock (item varchar(20) character set utf8mb4 primary key, pieces int not null);
                  insert into example_stock values ('lamp', 100), ('desk', 100)";
    sqlx::raw_sql(schema).execute(&pool).await?;
    let ledger = Ledger::builder(pool.clone())
        .table_prefix("example_")
        .build()?;
    ledger.migrate().await?;

    let day = Uuid::new_v4();
    let mut calls = JoinSet::new();
    for number in 0..40 {
        // Each of 20 orders is placed twice; every other one names its items the other way round.
        let order = number % 20;
        let items = if order % 2 == 0 {
            ["lamp", "desk"]
        } else {
            ["desk", "lamp"]
        };
        calls.spawn(reserve(ledger.clone(), day, order, items));
    }
    let answers = calls
        .join_all()
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let replayed = answers.iter().filter(|outcome| outcome.is_replay()).count();
    let runs = RUNS.load(Ordering::Relaxed);
    println!("calls           {} at once, for 20 orders", answers.len());
    println!("executed        {}", answers.len() - replayed);
    println!("replayed        {replayed}");
    println!(
        "runs of a body  {runs}, {} of them again after a deadlock",
        runs + replayed - answers.len()
    );

    let stock: Vec<(String, i32)> = sqlx::query_as("select item, pieces from example_stock")
        .fetch_all(&pool)
        .await?;
    for (item, pieces) in stock {
        println!("{item:<15} {pieces} pieces left of 100");
    }
    let publish = async |_: &Envelope| Ok::<_, Infallible>(()); // a broker would get them
    println!(
        "events          {} published",
        ledger.outbox().drain(publish).await?
    );
    Ok(())
}
