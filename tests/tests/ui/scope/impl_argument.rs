use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{order}")]
async fn place(_tx: &mut SqliteConnection, order: i64, extra: impl Into<i64> + Send) -> Result<i64, sqlx::Error> {
    Ok(order + extra.into())
}

fn main() {}
