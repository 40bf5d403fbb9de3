use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{order}", detach)]
async fn place(_tx: &mut SqliteConnection, order: &str) -> Result<String, sqlx::Error> {
    Ok(order.to_owned())
}

fn main() {}
