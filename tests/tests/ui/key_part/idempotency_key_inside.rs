use effectively::{IdempotencyKey, KeyPart};

#[derive(KeyPart)]
struct Caller(IdempotencyKey);

fn main() {}
