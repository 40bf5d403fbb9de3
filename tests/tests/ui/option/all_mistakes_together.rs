use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{odrer}", scope = "", retention = "0h", wait = "2m", retries = 0, typo)]
async fn place(_tx: &mut SqliteConnection, order: i64) -> Result<i64, sqlx::Error> {
    Ok(order)
}

fn main() {}
