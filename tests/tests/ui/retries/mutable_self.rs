use effectively::{Ledger, idempotent};
use sqlx::{Sqlite, SqliteConnection};

struct Service {
    ledger: Ledger<Sqlite>,
}

impl Service {
    #[idempotent(key = "{order}", retries = 3, from = self.ledger)]
    async fn place(&mut self, _tx: &mut SqliteConnection, order: i64) -> Result<i64, sqlx::Error> {
        Ok(order)
    }
}

fn main() {}
