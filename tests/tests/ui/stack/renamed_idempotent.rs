use effectively::{Emit, idempotent as once, outbox};
use sqlx::SqliteConnection;

#[outbox]
#[once(key = "{order}")]
async fn place(_tx: &mut SqliteConnection, order: i64) -> Result<Emit<i64>, sqlx::Error> {
    Ok(Emit::new(order))
}

fn main() {}
