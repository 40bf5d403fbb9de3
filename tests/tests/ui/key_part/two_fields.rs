use effectively::KeyPart;

#[derive(KeyPart)]
struct OrderId {
    tenant: i64,
    number: i64,
}

fn main() {}
