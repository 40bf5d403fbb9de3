use effectively::idempotent;
use sqlx::SqliteConnection;

struct Command {
    order_id: i64,
}

#[idempotent(key = "{command}")]
async fn place(_tx: &mut SqliteConnection, command: Command) -> Result<i64, sqlx::Error> {
    Ok(command.order_id)
}

fn main() {}
