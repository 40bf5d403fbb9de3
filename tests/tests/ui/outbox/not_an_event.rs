use effectively::{Emit, outbox};
use sqlx::SqliteConnection;

#[outbox]
async fn place(_tx: &mut SqliteConnection, order: i64) -> Result<Emit<i64>, sqlx::Error> {
    Ok(Emit::new(order).event("placed"))
}

fn main() {}
