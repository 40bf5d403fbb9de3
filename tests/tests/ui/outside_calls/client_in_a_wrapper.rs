use effectively::idempotent;
use sqlx::SqliteConnection;

mod reqwest {
    pub struct Client;
}

#[idempotent(key = "{order}")]
async fn place(_tx: &mut SqliteConnection, order: i64, http: std::sync::Arc<reqwest::Client>) -> Result<i64, sqlx::Error> {
    drop(http);
    Ok(order)
}

fn main() {}
