use effectively::idempotent;
use sqlx::PgConnection;

#[idempotent(key = "{typ}")]
async fn place(_tx: &mut PgConnection, r#type: i64) -> Result<i64, sqlx::Error> {
    Ok(r#type)
}

fn main() {}
