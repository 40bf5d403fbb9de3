use effectively::{Emit, idempotent, outbox as send};
use sqlx::SqliteConnection;

#[idempotent(key = "{order}")]
#[send]
async fn place(_tx: &mut SqliteConnection, order: i64) -> Result<Emit<i64>, sqlx::Error> {
    Ok(Emit::new(order))
}

fn main() {}
