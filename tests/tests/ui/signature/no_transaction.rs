use effectively::idempotent;

#[idempotent(key = "{order}")]
async fn place(order: i64) -> Result<i64, sqlx::Error> {
    Ok(order)
}

fn main() {}
