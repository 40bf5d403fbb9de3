//! A plain async function: what calls it twice (a cron job, a queue, a person) causes one effect.
//!
//! How to run: `cargo run -p effectively-examples --bin plain_function`
//!
//! What to try: take `fingerprint(cents)` away: the call with another amount is then answered with the first one's outcome.

#![expect(clippy::print_stdout, reason = "a program that shows something")]

use std::error::Error;

use effectively::{Failure, Ledger, Outcome, idempotent};
use sqlx::SqliteConnection;

/// Books a payment and answers with the new balance. For its callers, `tx` is a [`Ledger`].
#[idempotent(key = "{account}/{invoice}", fingerprint(cents), retention = "30d")]
async fn book(
    tx: &mut SqliteConnection,
    account: &str,
    invoice: u32,
    cents: i64,
) -> Result<i64, BookError> {
    sqlx::query("insert into bookings (account, invoice, cents) values (?, ?, ?)")
        .bind(account)
        .bind(invoice)
        .bind(cents)
        .execute(&mut *tx)
        .await?;
    let update = "update accounts set balance = balance + ? where name = ? returning balance";
    sqlx::query_scalar(update)
        .bind(cents)
        .bind(account)
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(BookError::NoSuchAccount) // an error: the booking above is rolled back
}

#[derive(Debug, thiserror::Error)]
enum BookError {
    #[error("there is no such account")]
    NoSuchAccount,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (_folder, pool) = effectively_examples::temporary_sqlite().await?;
    let schema = "create table accounts (name text primary key, balance integer not null);
                  create table bookings (account text, invoice integer, cents integer);
                  insert into accounts values ('shop', 0);";
    sqlx::raw_sql(schema).execute(&pool).await?;
    let ledger = Ledger::new(pool.clone());
    ledger.migrate().await?;

    show(
        "the first call",
        book(ledger.clone(), "shop", 1, 4200).await,
    );
    show(
        "the same again",
        book(ledger.clone(), "shop", 1, 4200).await,
    );
    show(
        "another amount",
        book(ledger.clone(), "shop", 1, 9900).await,
    );
    show("the body fails", book(ledger.clone(), "club", 2, 500).await);
    sqlx::query("insert into accounts values ('club', 0)")
        .execute(&pool)
        .await?;
    show(
        "... and may retry",
        book(ledger.clone(), "club", 2, 500).await,
    );

    let bookings: i64 = sqlx::query_scalar("select count(*) from bookings")
        .fetch_one(&pool)
        .await?;
    println!("\n5 calls, {bookings} bookings");
    Ok(())
}

fn show(call: &str, answer: Result<Outcome<i64>, Failure<BookError>>) {
    let answer = match answer {
        Ok(outcome) => {
            let how = if outcome.is_replay() {
                "replayed"
            } else {
                "executed"
            };
            outcome.into_result().map_or_else(
                |error| error.to_string(),
                |balance| format!("{how}, balance {balance}"),
            )
        }
        Err(Failure::Handler(error)) => format!("rolled back, the key is free: {error}"),
        Err(Failure::Toolkit(error)) => format!("refused: {error}"),
    };
    println!("{call:<18} {answer}");
}
