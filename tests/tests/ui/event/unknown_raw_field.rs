use effectively::Event;
use serde::Serialize;

#[derive(Serialize, Event)]
#[event(topic = "orders", name = "placed", key = "{typ}")]
struct Placed {
    r#type: i64,
}

fn main() {}
