use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{orders}")]
async fn place(_tx: &mut SqliteConnection, orders: Vec<String>) -> Result<Vec<String>, sqlx::Error> {
    Ok(orders)
}

fn main() {}
