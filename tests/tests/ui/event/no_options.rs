use effectively::Event;
use serde::Serialize;

#[derive(Serialize, Event)]

struct OrderPlaced {
    order_id: i64,
}

fn main() {}
