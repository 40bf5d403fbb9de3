use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{order}")]
async fn place(_tx: &mut SqliteConnection, order: i64) {
    drop(order);
}

fn main() {}
