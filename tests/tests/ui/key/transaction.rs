use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{tx}")]
async fn place(tx: &mut SqliteConnection, order: i64) -> Result<i64, sqlx::Error> {
    drop(tx);
    Ok(order)
}

fn main() {}
