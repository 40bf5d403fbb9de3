//! What the program prints, and the three numbers of its last line.

#![expect(clippy::print_stdout, reason = "a program that shows something")]

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt,
    net::SocketAddr,
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use effectively::Ledger;
use sqlx::{Sqlite, SqlitePool};

use crate::story::Row;

pub fn heading(address: SocketAddr) {
    println!("A shop on http://{address} (axum, and SQLite in a temporary file).\n");
}

pub fn requests(rows: &[Row]) {
    let widest = rows
        .iter()
        .map(|row| row.answers.len())
        .max()
        .unwrap_or_default();
    let line = |request: &str, answers: &str, before: &str, after: &str| {
        println!("{request:<26}  {answers:<widest$}  {before:>13}  {after:>5}");
    };
    line("request", "answers", "orders before", "after");
    line(
        &"-".repeat(26),
        &"-".repeat(widest),
        &"-".repeat(13),
        "-----",
    );
    for row in rows {
        let (before, after) = (row.before.to_string(), row.after.to_string());
        line(row.request, &row.answers, &before, &after);
    }
}

/// The first and last orders.
pub async fn orders(pool: &SqlitePool) -> Result<(), sqlx::Error> {
    let orders: Vec<(i64, String, String, String)> =
        sqlx::query_as("select id, customer, request, item from orders order by id")
            .fetch_all(pool)
            .await?;
    println!("\norder  customer  key        item\n-----  --------  ---------  -------------");
    for (n, (id, customer, key, item)) in orders.iter().enumerate() {
        if n < 4 || n + 3 > orders.len() {
            println!("{id:>5}  {customer:<8}  {key:<9}  {item}");
        } else if n == 4 {
            println!("  ...  {} more", orders.len() - 6);
        }
    }
    Ok(())
}

/// Drains the outbox once. Answers the orders whose events were in it.
pub async fn drain(ledger: &Ledger<Sqlite>) -> Result<Vec<i64>, Box<dyn Error>> {
    let (mut events, mut orders) = (BTreeSet::new(), Vec::new());
    let publish = async |event: &effectively::Envelope| {
        let data: serde_json::Value = serde_json::from_slice(&event.data)?;
        orders.extend(data["order_id"].as_i64());
        events.insert(event.id);
        Ok::<_, serde_json::Error>(())
    };
    let drained = ledger.outbox().drain(publish).await?;
    let left = ledger.outbox().pending().await?;
    println!(
        "\noutbox: {drained} events drained in order, {} different ids, {left} left\n",
        events.len()
    );
    Ok(orders)
}

/// What must be 1, 0 and 0.
pub struct Verdict {
    most_orders_of_a_key: i64,
    lost: usize,
    double: i64,
}

impl Verdict {
    pub async fn of(
        pool: &SqlitePool,
        acknowledged: &BTreeMap<String, String>,
        published: &[i64],
    ) -> Result<Self, sqlx::Error> {
        let (most_orders_of_a_key, double) = sqlx::query_as(
            "select coalesce(max(orders), 0), coalesce(sum(orders > 1), 0)
             from (select count(*) as orders from orders group by customer, request)",
        )
        .fetch_one(pool)
        .await?;
        let placed: Vec<(i64, String)> = sqlx::query_as("select id, request from orders")
            .fetch_all(pool)
            .await?;
        let keys: BTreeSet<_> = placed.iter().map(|(_, key)| key).collect();
        let without_order = acknowledged.keys().filter(|key| !keys.contains(key));
        let without_event = placed.iter().filter(|(id, _)| !published.contains(id));
        let lost = without_order.count() + without_event.count();
        Ok(Self {
            most_orders_of_a_key,
            lost,
            double,
        })
    }

    pub fn exit_code(&self) -> ExitCode {
        let holds = (self.most_orders_of_a_key, self.lost, self.double) == (1, 0, 0);
        if holds {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            most_orders_of_a_key: most,
            lost,
            double,
        } = self;
        write!(
            f,
            "quickstart: {most} order per key, {lost} lost, {double} double"
        )
    }
}

pub fn last_line(verdict: &Verdict) {
    println!("{verdict}");
}

/// Stays up, publishes the events of new orders to the terminal, and ends with Ctrl-C.
pub async fn serve(address: SocketAddr, ledger: &Ledger<Sqlite>) -> Result<(), Box<dyn Error>> {
    println!(
        r#"
Still up, until Ctrl-C. In another terminal:

  curl -i http://{address}/orders -d '{{"item": "a lamp"}}' -H 'Content-Type: application/json' \
    -H 'Authorization: Bearer alice' -H 'Idempotency-Key: "my-first-order"'

Then the same again (the same bytes, `idempotent-replayed: true`), with another item (422), without the key (400), and
with `Bearer bob` (his own order: a key belongs to its caller). New events:
"#
    );
    let publish = async |event: &effectively::Envelope| {
        println!(
            "  {} {} {}",
            event.id,
            event.name,
            String::from_utf8_lossy(&event.data)
        );
        Ok::<_, std::convert::Infallible>(())
    };
    let outbox = ledger.outbox();
    let mut stop = pin!(tokio::signal::ctrl_c());
    loop {
        outbox.drain(publish).await?;
        tokio::select! {
            stopped = &mut stop => return Ok(stopped?),
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
}
