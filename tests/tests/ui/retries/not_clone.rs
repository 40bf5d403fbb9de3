use effectively::idempotent;
use sqlx::SqliteConnection;

struct Token(i64);

#[idempotent(key = "{order}", retries = 3)]
async fn place(_tx: &mut SqliteConnection, order: i64, token: Token) -> Result<i64, sqlx::Error> {
    Ok(order + token.0)
}

fn main() {}
