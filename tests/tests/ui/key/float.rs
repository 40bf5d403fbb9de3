use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{amount}")]
async fn place(_tx: &mut SqliteConnection, amount: f64) -> Result<f64, sqlx::Error> {
    Ok(amount)
}

fn main() {}
