use effectively::{Ledger, idempotent};
use sqlx::{Sqlite, SqliteConnection};

struct Service {
    ledger: Ledger<Sqlite>,
}

#[effectively::handlers(ledger = self.ledger)]
impl Service {
    #[idempotent(key = "{order}")]
    async fn place(&self, _tx: &mut SqliteConnection, order: i64) -> Result<i64, sqlx::Error> {
        Ok(order)
    }
}

fn main() {}
