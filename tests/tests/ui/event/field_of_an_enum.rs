use effectively::Event;
use serde::Serialize;

#[derive(Serialize, Event)]
#[event(topic = "orders", name = "order.v1", key = "{order_id}")]
enum Order {
    Placed { order_id: i64 },
}

fn main() {}
