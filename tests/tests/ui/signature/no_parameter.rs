use effectively::outbox;

struct Placed;

#[outbox]
async fn place() -> Result<Vec<Placed>, sqlx::Error> {
    Ok(Vec::new())
}

fn main() {}
