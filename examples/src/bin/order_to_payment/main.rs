//! From an order to a payment API: outbox, relay, and a call whose key stays the same each time it is tried.
//!
//! How to run: `cargo run -p effectively-examples --bin order_to_payment`. The payment API is an axum server in this process.
//! It remembers keys, as Stripe does, and after some charges it answers 500, or nothing.
//!
//! What to try: leave the header `Idempotency-Key` out of `charge`, and see cards charged twice.

#![expect(clippy::print_stdout, reason = "a program that shows something")]

mod payments;

use std::{error::Error, process::ExitCode, time::Duration};

use effectively::sink::{Effect, EffectError, EffectKey};
use effectively::{Emit, Event, Ledger, Relay, idempotent, outbox};
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use tokio::{sync::oneshot, time::sleep};

/// The API is not called in here, where nothing could call it back: an event asks for it.
#[idempotent(key = "{cart}", fingerprint(cents))]
#[outbox]
async fn place_order(tx: &mut SqliteConnection, cart: i64, cents: i64) -> sqlx::Result<Emit<i64>> {
    let insert = sqlx::query_scalar("insert into orders (cents) values (?) returning id");
    let order_id: i64 = insert.bind(cents).fetch_one(&mut *tx).await?;
    Ok(Emit::new(order_id).event(PaymentDue { order_id, cents }))
}

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "payments", name = "payment.due.v1", key = "{order_id}")]
struct PaymentDue {
    order_id: i64,
    cents: i64,
}

/// The effect, called by the relay after the commit. After a timeout or a crash it is called again, with the same key.
async fn charge(
    request: reqwest::RequestBuilder,
    due: PaymentDue,
    key: EffectKey,
) -> Result<(), EffectError> {
    let request = request.header("Idempotency-Key", key.as_str()).json(&due);
    let Ok(answer) = request.send().await else {
        // Whether it has charged is unknown. The error's own words would name the URL: keep them out.
        return Err(EffectError::unavailable("the payment API does not answer"));
    };
    match answer.status().as_u16() {
        200..=299 => Ok(()),
        402 => Err(EffectError::fatal("the card was declined")), // a dead letter at once
        429 | 502.. => Err(EffectError::unavailable("the payment API is busy")),
        code => Err(EffectError::retry(format!(
            "the payment API answers {code}"
        ))),
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let payments = payments::Api::default();
    let url = format!("http://{}/charges", payments.serve().await?);

    let (_folder, pool) = effectively_examples::temporary_sqlite().await?;
    sqlx::raw_sql("create table orders (id integer primary key, cents integer)")
        .execute(&pool)
        .await?;
    let ledger = Ledger::new(pool);
    ledger.migrate().await?;

    let client = reqwest::Client::builder()
        .timeout(Duration::from_millis(500)) // short, for a demonstration
        .build()?;
    let effect = Effect::json(move |due, key| charge(client.post(&url), due, key));
    let relay = Relay::builder(ledger.clone())
        .route("payments", effect)
        .build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let relay = tokio::spawn(relay.run(async { _ = stopped.await }));

    for call in 0..20 {
        let cart = call % 10; // each is ordered twice
        let ordered = place_order(ledger.clone(), cart, 995 + 500 * cart).await?;
        ordered.into_result()?;
    }
    while ledger.outbox().pending().await? > 0 {
        sleep(Duration::from_millis(20)).await;
    }
    drop(stop);
    relay.await??;

    let (orders,): (i64,) = sqlx::query_as("select count(*) from orders")
        .fetch_one(ledger.pool())
        .await?;
    let book = payments.book();
    let (calls, charges) = (book.calls, book.charges.len());
    println!("the shop      20 calls, {orders} orders");
    println!(
        "payment API   {calls} calls with {} keys\n",
        book.keys.len()
    );
    println!("order_to_payment: {orders} orders, {calls} calls, {charges} charges");
    let once = book.once_for_each(orders);
    Ok(ExitCode::from(u8::from(!once)))
}
