use effectively::Event;
use serde::Serialize;

#[derive(Serialize, Event)]
#[event(topic = "orders", name = "order.placed.v1", key = "{amount}")]
struct OrderPlaced {
    amount: f64,
}

fn main() {}
