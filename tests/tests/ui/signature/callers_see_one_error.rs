use effectively::idempotent;
use sqlx::SqliteConnection;

struct Service;

impl Service {
    #[idempotent(key = "{order}")]
    fn place(&self, _tx: &mut SqliteConnection, order: i64) -> Result<i64, sqlx::Error> {
        Ok(order)
    }

    fn caller(&self, tx: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
        self.place(tx, 1)
    }
}

fn main() {}
