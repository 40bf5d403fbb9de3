use effectively::{Emit, idempotent};
use sqlx::SqliteConnection;

#[idempotent(key = "{order}")]
async fn place(_tx: &mut SqliteConnection, order: i64) -> Result<Emit<i64>, sqlx::Error> {
    Ok(Emit::new(order))
}

fn main() {}
