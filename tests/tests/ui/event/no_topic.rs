use effectively::Event;
use serde::Serialize;

#[derive(Serialize, Event)]
#[event(name = "order.placed.v1")]
struct OrderPlaced {
    order_id: i64,
}

fn main() {}
