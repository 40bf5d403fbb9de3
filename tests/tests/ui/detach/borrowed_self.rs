use effectively::{Ledger, idempotent};
use sqlx::{Sqlite, SqliteConnection};

struct Service {
    ledger: Ledger<Sqlite>,
}

impl Service {
    #[idempotent(key = "{order}", detach, from = self.ledger)]
    async fn place(&self, _tx: &mut SqliteConnection, order: i64) -> Result<i64, sqlx::Error> {
        Ok(order)
    }
}

fn main() {}
