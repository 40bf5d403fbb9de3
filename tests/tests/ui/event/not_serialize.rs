use effectively::Event;

#[derive(Event)]
#[event(topic = "orders", name = "order.placed.v1")]
struct OrderPlaced {
    order_id: i64,
}

fn main() {}
