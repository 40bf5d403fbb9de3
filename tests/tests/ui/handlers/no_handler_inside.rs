struct Service;

#[effectively::handlers(from = self.ledger)]
impl Service {
    async fn place(&self, order: i64) -> i64 {
        order
    }
}

fn main() {}
