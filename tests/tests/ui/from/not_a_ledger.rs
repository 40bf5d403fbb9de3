use effectively::idempotent;
use sqlx::SqliteConnection;

struct Service {
    name: String,
}

impl Service {
    #[idempotent(key = "{order}", from = self.name)]
    async fn place(&self, _tx: &mut SqliteConnection, order: i64) -> Result<i64, sqlx::Error> {
        Ok(order)
    }
}

fn main() {}
