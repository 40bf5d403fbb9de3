use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{order}")]
async fn place(tx: &mut SqliteConnection, order: i64) -> Result<i64, sqlx::Error> {
    sqlx::query("select 1").execute(tx).await?;
    sqlx::query("select 2").execute(tx).await?;
    Ok(order)
}

fn main() {}
