use effectively::{IdempotencyKey, idempotent};
use sqlx::SqliteConnection;

#[idempotent(key = "{key}")]
async fn place(_tx: &mut SqliteConnection, key: &IdempotencyKey) -> Result<i64, sqlx::Error> {
    Ok(1)
}

fn main() {}
