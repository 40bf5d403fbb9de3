use effectively::idempotent;
use sqlx::SqliteConnection;

struct Receipt(i64);

#[idempotent(key = "{order}")]
async fn place(_tx: &mut SqliteConnection, order: i64) -> Result<Receipt, sqlx::Error> {
    Ok(Receipt(order))
}

fn main() {}
