use effectively::idempotent;

#[idempotent(key = "{order}")]
struct Orders;

fn main() {}
