use effectively::{Ledger, idempotent};
use sqlx::{Sqlite, SqliteConnection};

#[async_trait::async_trait]
trait Orders {
    async fn place(&self, order: i64) -> Result<i64, effectively::Error>;
}

struct Service {
    ledger: Ledger<Sqlite>,
}

#[async_trait::async_trait]
impl Orders for Service {
    #[idempotent(key = "{order}", from = self.ledger, transparent)]
    async fn place(&self, _tx: &mut SqliteConnection, order: i64) -> Result<i64, effectively::Error> {
        Ok(order)
    }
}

fn main() {}
