use effectively::idempotent;
use sqlx::{Sqlite, Transaction};

#[idempotent(key = "{order}")]
async fn place(_tx: &mut Transaction<'_, Sqlite>, order: i64) -> Result<i64, sqlx::Error> {
    Ok(order)
}

fn main() {}
