use effectively::{IdempotencyKey, idempotent};
use sqlx::SqliteConnection;

#[idempotent(key = "order:{idempotency_key}")]
async fn place(_tx: &mut SqliteConnection, idempotency_key: IdempotencyKey) -> Result<i64, sqlx::Error> {
    Ok(1)
}

fn main() {}
