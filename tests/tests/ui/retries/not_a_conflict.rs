use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{order}", retries = 3)]
async fn place(_tx: &mut SqliteConnection, order: i64) -> Result<i64, std::fmt::Error> {
    Ok(order)
}

fn main() {}
