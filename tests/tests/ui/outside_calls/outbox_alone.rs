use effectively::{Emit, outbox};
use sqlx::SqliteConnection;

mod reqwest {
    pub struct Client;
}

#[outbox]
async fn place(_tx: &mut SqliteConnection, order: i64, http: reqwest::Client) -> Result<Emit<i64>, sqlx::Error> {
    drop(http);
    Ok(Emit::new(order))
}

fn main() {}
