use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{odrer}")]
async fn place(_tx: &mut SqliteConnection, order: i64) -> Result<i64, sqlx::Error> {
    let text: String = order;
    Ok(order)
}

fn main() {}
