use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{order}", retention = "18446744073709551615ms")]
async fn place(_tx: &mut SqliteConnection, order: i64) -> Result<i64, sqlx::Error> {
    Ok(order)
}

fn main() {}
