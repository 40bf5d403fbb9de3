//! Methods: the ledger is a field of `self`, so callers see a service like any other.
//!
//! How to run: `cargo run -p effectively-examples --bin method`
//!
//! What to try: take `transparent` away: the method then returns an `Outcome`, which says whether it is a replay.

#![expect(clippy::print_stdout, reason = "a program that shows something")]

use std::error::Error;

use effectively::{Ledger, idempotent};
use sqlx::{Sqlite, SqliteConnection};

struct Tickets {
    venue: String,
    ledger: Ledger<Sqlite>,
}

impl Tickets {
    /// Sells the next free seat. `tx` is gone for callers: `tickets.sell("alice", "click-1")`.
    #[idempotent(key = "{self.venue}/{buyer}/{click}", from = self.ledger)]
    async fn sell(&self, tx: &mut SqliteConnection, buyer: &str, click: &str) -> sqlx::Result<i64> {
        let next_seat = "insert into tickets (venue, buyer, seat)
                         select ?1, ?2, count(*) + 1 from tickets where venue = ?1 returning seat";
        sqlx::query_scalar(next_seat)
            .bind(&self.venue)
            .bind(buyer)
            .fetch_one(&mut *tx)
            .await
    }

    /// `transparent` keeps the return type as it is written, for traits and callers that know nothing of this.
    #[idempotent(key = "{self.venue}/{seat}", from = self.ledger, transparent)]
    async fn give_back(&self, tx: &mut SqliteConnection, seat: i64) -> Result<u64, ServiceError> {
        let deleted = sqlx::query("delete from tickets where venue = ? and seat = ?")
            .bind(&self.venue)
            .bind(seat)
            .execute(&mut *tx)
            .await?;
        Ok(deleted.rows_affected())
    }
}

/// What a transparent method returns must be able to carry the toolkit's errors.
#[derive(Debug, thiserror::Error)]
enum ServiceError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Effectively(#[from] effectively::Error),
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (_folder, pool) = effectively_examples::temporary_sqlite().await?;
    sqlx::raw_sql("create table tickets (venue text, buyer text, seat integer)")
        .execute(&pool)
        .await?;
    let ledger = Ledger::new(pool.clone());
    ledger.migrate().await?;
    let tickets = Tickets {
        venue: "opera".to_owned(),
        ledger,
    };

    for (buyer, click) in [
        ("alice", "click-1"),
        ("alice", "click-1"),
        ("bob", "click-1"),
        ("alice", "click-2"),
    ] {
        let outcome = tickets.sell(buyer, click).await?;
        let how = if outcome.is_replay() {
            "replayed"
        } else {
            "executed"
        };
        println!(
            "sell       {buyer:<6} {click:<8} {how}: seat {}",
            outcome.into_result()?
        );
    }
    for attempt in ["first", "again"] {
        println!(
            "give back  seat 2 {attempt:<8} {} ticket deleted",
            tickets.give_back(2).await?
        );
    }

    let sold: i64 = sqlx::query_scalar("select count(*) from tickets")
        .fetch_one(&pool)
        .await?;
    println!("\n4 sales of which 1 is a repeat, 1 seat given back: {sold} tickets are out");
    Ok(())
}
