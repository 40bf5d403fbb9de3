//! One handler for three databases: it is generic over the connection, and the queries that differ are a trait.
//!
//! How to run: `cargo run -p effectively-examples --bin three_databases` for SQLite alone; URLs of a PostgreSQL and a
//! MySQL or MariaDB database after `--` add those. All tables there begin with `example_`, and stay.
//!
//! What to try: give it all three, and a fourth word to see what it says.

#![expect(clippy::print_stdout, reason = "a program that shows something")]

use std::error::Error;

use effectively::{Dialect, Ledger, TxParam, idempotent};
use sqlx::{Database, MySqlConnection, MySqlPool, PgConnection, PgPool, Pool, SqliteConnection};
use uuid::Uuid;

/// The handler. `C` is the only thing it is generic over, so its name is still a good scope.
#[idempotent(key = "{customer}/{request}", fingerprint(item))]
async fn place_order<C: Orders>(
    tx: &mut C,
    customer: Uuid,
    request: &str,
    item: &str,
) -> sqlx::Result<i64> {
    tx.insert(item).await?;
    tx.count().await
}

/// What the application asks of a database.
trait Orders: TxParam<Db: Dialect> + Send {
    fn create_table(&mut self) -> impl Future<Output = sqlx::Result<()>> + Send;
    fn insert(&mut self, item: &str) -> impl Future<Output = sqlx::Result<()>> + Send;
    fn count(&mut self) -> impl Future<Output = sqlx::Result<i64>> + Send;
}

/// Here only the place holders and MySQL's word for text differ.
macro_rules! orders {
    ($($connection:ty, $text:literal, $insert:literal;)*) => {$(
        impl Orders for $connection {
            async fn create_table(&mut self) -> sqlx::Result<()> {
                let create = concat!("create table if not exists example_orders (item ", $text, " not null)");
                sqlx::query(create).execute(self).await.map(drop)
            }

            async fn insert(&mut self, item: &str) -> sqlx::Result<()> {
                sqlx::query($insert).bind(item).execute(self).await.map(drop)
            }

            async fn count(&mut self) -> sqlx::Result<i64> {
                sqlx::query_scalar("select count(*) from example_orders").fetch_one(self).await
            }
        }
    )*};
}
orders! {
    SqliteConnection, "varchar(50)", "insert into example_orders values (?)";
    PgConnection, "varchar(50)", "insert into example_orders values ($1)";
    MySqlConnection, "varchar(50) character set utf8mb4", "insert into example_orders values (?)";
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (_folder, pool) = effectively_examples::temporary_sqlite().await?;
    show("SQLite", pool).await?;
    for url in std::env::args().skip(1) {
        match url.split_once("://") {
            Some(("postgres" | "postgresql", _)) => {
                show("PostgreSQL", PgPool::connect(&url).await?).await?;
            }
            Some(("mysql" | "mariadb", _)) => {
                show("MySQL", MySqlPool::connect(&url).await?).await?;
            }
            _ => effectively_examples::stop(&format!(
                "`{url}` is no URL that begins with postgres:// or mysql://"
            )),
        }
    }
    Ok(())
}

async fn show<DB>(name: &str, pool: Pool<DB>) -> Result<(), Box<dyn Error>>
where
    DB: Dialect + Database<Connection: Orders + TxParam<Db = DB>>,
{
    pool.acquire().await?.create_table().await?;
    let ledger = Ledger::builder(pool).table_prefix("example_").build()?;
    ledger.migrate().await?;
    let customer = Uuid::new_v4();
    for (request, item) in [
        ("r1", "a lamp"),
        ("r1", "a lamp"),
        ("r1", "ten lamps"),
        ("r2", "a desk"),
    ] {
        let answer =
            match place_order::<DB::Connection>(ledger.clone(), customer, request, item).await {
                Ok(outcome) if outcome.is_replay() => {
                    format!("replayed, order count {}", outcome.into_result()?)
                }
                Ok(outcome) => format!("executed, order count {}", outcome.into_result()?),
                Err(error) => format!("refused, {error}"),
            };
        println!("{name:<11} {request}  {item:<10} {answer}");
    }
    Ok(())
}
