use effectively::Event;
use serde::Serialize;

#[derive(Serialize, Event)]
#[event(topic = "orders", name = "order.placed.v1", key = "{oder_id}")]
struct OrderPlaced {
    order_id: i64,
}

fn main() {}
