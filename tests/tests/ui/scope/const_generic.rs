use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{order}")]
async fn place<const N: usize>(_tx: &mut SqliteConnection, order: i64, extra: [u8; N]) -> Result<i64, sqlx::Error> {
    Ok(order + extra.len() as i64)
}

fn main() {}
