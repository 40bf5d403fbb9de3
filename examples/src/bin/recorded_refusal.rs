//! Errors that are answers: a declined card stays declined for its key; a lost connection does not.
//!
//! How to run: `cargo run -p effectively-examples --bin recorded_refusal`
//!
//! What to try: take `on_error = "record"` away: every error then frees the key, and the third call pays.

#![expect(clippy::print_stdout, reason = "a program that shows something")]

use std::error::Error;

use effectively::{Failure, Ledger, Outcome, Recorded, Refusal, idempotent};
use sqlx::SqliteConnection;

#[idempotent(key = "{account}/{payment}", on_error = "record")]
async fn pay(
    tx: &mut SqliteConnection,
    account: &str,
    payment: &str,
    cents: i64,
) -> Result<i64, PayError> {
    let update = "update accounts set balance = balance - ? where name = ? returning balance";
    let balance: i64 = sqlx::query_scalar(update)
        .bind(cents)
        .bind(account)
        .fetch_one(&mut *tx)
        .await?;
    if balance < 0 {
        return Err(PayError::Declined { missing: -balance }); // what was taken is put back
    }
    Ok(balance)
}

#[derive(Debug, thiserror::Error)]
enum PayError {
    #[error("declined, {missing} cents are missing")]
    Declined { missing: i64 },
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Which errors are final, and how they are stored. In a web framework the status and body are the answer.
impl Refusal for PayError {
    fn refusal(&self) -> Option<Recorded> {
        match self {
            Self::Declined { missing } => Recorded::json_refusal(402, missing),
            Self::Database(_) => None,
        }
    }

    fn from_refusal(recorded: &Recorded) -> Option<Self> {
        let missing = serde_json::from_slice(recorded.body()).ok()?;
        Some(Self::Declined { missing })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (_folder, pool) = effectively_examples::temporary_sqlite().await?;
    sqlx::raw_sql("create table accounts (name text primary key, balance integer); insert into accounts values ('alice', 30)")
        .execute(&pool)
        .await?;
    let ledger = Ledger::new(pool.clone());
    ledger.migrate().await?;

    show(
        "pay 100 cents out of 30",
        pay(ledger.clone(), "alice", "p1", 100).await,
    );
    show(
        "the same again",
        pay(ledger.clone(), "alice", "p1", 100).await,
    );
    sqlx::query("update accounts set balance = balance + 200")
        .execute(&pool)
        .await?;
    show(
        "the same with money",
        pay(ledger.clone(), "alice", "p1", 100).await,
    );
    show(
        "a new payment",
        pay(ledger.clone(), "alice", "p2", 100).await,
    );
    show(
        "nobody's account",
        pay(ledger.clone(), "bob", "p3", 100).await,
    );
    sqlx::query("insert into accounts values ('bob', 500)")
        .execute(&pool)
        .await?;
    show(
        "... once he has one",
        pay(ledger.clone(), "bob", "p3", 100).await,
    );
    Ok(())
}

fn show(call: &str, answer: Result<Outcome<i64>, Failure<PayError>>) {
    let answer = match answer {
        Ok(outcome) => {
            let how = if outcome.is_replay() {
                "replayed"
            } else {
                "executed"
            };
            match outcome.into_result() {
                Ok(balance) => format!("{how}: paid, {balance} cents left"),
                Err(Failure::Handler(refused)) => match refused.into_error::<PayError>() {
                    Ok(error) => format!("{how}: {error}"),
                    Err(error) => error.to_string(),
                },
                Err(Failure::Toolkit(error)) => error.to_string(),
            }
        }
        Err(error) => format!("rolled back, the key is free: {error}"),
    };
    println!("{call:<24} {answer}");
}
