use effectively::Event;
use serde::Serialize;

#[derive(Serialize, Event)]
#[event(topics = "orders", name = "order.placed.v1", topic = "orders")]
struct OrderPlaced {
    order_id: i64,
}

fn main() {}
