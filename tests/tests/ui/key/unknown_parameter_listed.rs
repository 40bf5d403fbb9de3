use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{tenant}/{order}")]
async fn place(_tx: &mut SqliteConnection, order: i64, user: i64) -> Result<i64, sqlx::Error> {
    Ok(order + user)
}

fn main() {}
