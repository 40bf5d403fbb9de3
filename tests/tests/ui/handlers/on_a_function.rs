use sqlx::SqliteConnection;

#[effectively::handlers(from = self.ledger)]
async fn place(_tx: &mut SqliteConnection, order: i64) -> Result<i64, sqlx::Error> {
    Ok(order)
}

fn main() {}
