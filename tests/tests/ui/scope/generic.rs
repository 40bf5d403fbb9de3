use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{order}")]
async fn place<T: Send>(_tx: &mut SqliteConnection, order: i64, extra: T) -> Result<i64, sqlx::Error> {
    drop(extra);
    Ok(order)
}

fn main() {}
