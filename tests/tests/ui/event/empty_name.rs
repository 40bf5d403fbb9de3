use effectively::Event;
use serde::Serialize;

#[derive(Serialize, Event)]
#[event(topic = "orders", name = "")]
struct OrderPlaced {
    order_id: i64,
}

fn main() {}
