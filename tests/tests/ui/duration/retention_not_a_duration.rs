use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{order}", retention = "one day")]
async fn place(_tx: &mut SqliteConnection, order: i64) -> Result<i64, sqlx::Error> {
    Ok(order)
}

fn main() {}
