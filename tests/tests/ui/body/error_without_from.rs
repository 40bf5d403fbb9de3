use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{order}")]
async fn place(tx: &mut SqliteConnection, order: i64) -> Result<i64, std::fmt::Error> {
    sqlx::query("select 1").execute(&mut *tx).await?;
    Ok(order)
}

fn main() {}
