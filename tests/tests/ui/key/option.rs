use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{order}")]
async fn place(_tx: &mut SqliteConnection, order: Option<i64>) -> Result<Option<i64>, sqlx::Error> {
    Ok(order)
}

fn main() {}
