use effectively::idempotent;
use sqlx::SqliteConnection;

trait Orders {
    #[idempotent(key = "{order}")]
    async fn place(&self, _tx: &mut SqliteConnection, order: i64) -> Result<i64, sqlx::Error>;
}

fn main() {}
