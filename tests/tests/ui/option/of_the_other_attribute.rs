use effectively::{Emit, idempotent, outbox};
use sqlx::SqliteConnection;

#[idempotent(key = "{order}")]
#[outbox(retention = "24h")]
async fn place(_tx: &mut SqliteConnection, order: i64) -> Result<Emit<i64>, sqlx::Error> {
    Ok(Emit::new(order))
}

fn main() {}
