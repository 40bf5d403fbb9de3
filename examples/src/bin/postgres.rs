//! PostgreSQL: a serializable transfer that runs again after a conflict, and a savepoint inside of it.
//!
//! How to run: `cargo run -p effectively-examples --bin postgres -- postgres://user:password@localhost/database`, or with the
//! URL in `DATABASE_URL`. All its tables are in a schema of its own, `effectively_example`, dropped at the end.
//!
//! What to try: take `retries = 20` away and count the errors.

#![expect(clippy::print_stdout, reason = "a program that shows something")]

use std::{
    error::Error,
    sync::atomic::{AtomicUsize, Ordering},
};

use effectively::{Ledger, idempotent};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::task::JoinSet;

static RUNS: AtomicUsize = AtomicUsize::new(0);

/// Moves one cent and answers with what is left. Several at once conflict, and those that lose run again with copies of their arguments.
#[idempotent(
    key = "{transfer}",
    isolation = "serializable",
    retries = 20,
    wait = "20s"
)]
async fn transfer(tx: &mut PgConnection, transfer: i32, from: i32, to: i32) -> sqlx::Result<i64> {
    RUNS.fetch_add(1, Ordering::Relaxed);
    for (account, cents) in [(from, -1), (to, 1)] {
        let update = "update effectively_example.accounts set cents = cents + $1 where id = $2";
        sqlx::query(update)
            .bind(cents)
            .bind(account)
            .execute(&mut *tx)
            .await?;
    }
    welcome(tx, from).await?;
    sqlx::query_scalar("select cents from effectively_example.accounts where id = $1")
        .bind(from)
        .fetch_one(&mut *tx)
        .await
}

/// An account is welcomed with its first transfer. Trying to do it twice fails, and only in the savepoint.
async fn welcome(tx: &mut PgConnection, account: i32) -> sqlx::Result<()> {
    let mut savepoint = tx.begin().await?;
    let insert = sqlx::query("insert into effectively_example.welcomed values ($1)").bind(account);
    match insert.execute(&mut *savepoint).await {
        Ok(_) => savepoint.commit().await,
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            savepoint.rollback().await
        }
        Err(error) => Err(error),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = effectively_examples::database_url(
        "postgres",
        "postgres://user:password@localhost/database",
    );
    let pool = PgPool::connect(&url).await?;
    let schema = "drop schema if exists effectively_example cascade;
                  create schema effectively_example;
                  create table effectively_example.accounts (id int primary key, cents bigint not null);
                  create table effectively_example.welcomed (account int primary key);
                  insert into effectively_example.accounts select id, 100 from generate_series(0, 4) as id";
    sqlx::raw_sql(schema).execute(&pool).await?;
    let ledger = Ledger::builder(pool.clone())
        .schema("effectively_example")
        .build()?;
    ledger.migrate().await?;

    let mut calls = JoinSet::new();
    for number in 0..40 {
        // Each of 20 transfers is asked for twice, and they go around five accounts.
        let (number, from) = (number % 20, number % 5);
        calls.spawn(transfer(ledger.clone(), number, from, (from + 1) % 5));
    }
    let answers = calls
        .join_all()
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let replayed = answers.iter().filter(|outcome| outcome.is_replay()).count();
    let runs = RUNS.load(Ordering::Relaxed);
    println!(
        "calls           {} at once, for 20 transfers",
        answers.len()
    );
    println!("executed        {}", answers.len() - replayed);
    println!("replayed        {replayed}");
    println!(
        "runs of a body  {runs}, {} of them again after a conflict",
        runs + replayed - answers.len()
    );
    let accounts: Vec<i64> =
        sqlx::query_scalar("select cents from effectively_example.accounts order by id")
            .fetch_all(&pool)
            .await?;
    println!("accounts        {accounts:?}: each gave 4 cents and got 4");
    sqlx::raw_sql("drop schema effectively_example cascade")
        .execute(&pool)
        .await?;
    Ok(())
}
