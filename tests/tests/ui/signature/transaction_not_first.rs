use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{order}")]
async fn place(order: i64, tx: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    drop(tx);
    Ok(order)
}

fn main() {}
