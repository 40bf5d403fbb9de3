//! The sink in memory against the conformance suite.

use effectively::sink::{Delivery, Memory};
use effectively::testing::sink::{Received, Rig};

effectively::sink_conformance!(rig);

const LIMIT: usize = 1000;

async fn rig() -> Option<InMemory> {
    let sink = Memory::new().judged_by(|event| {
        (event.data.len() > LIMIT).then(|| Delivery::refused_for_good("over 1,000 bytes"))
    });
    Some(InMemory(sink))
}

struct InMemory(Memory);

impl Rig for InMemory {
    type Sink = Memory;

    async fn sink(&mut self) -> Memory {
        self.0.clone()
    }

    async fn topic(&mut self) -> String {
        "orders".to_owned()
    }

    async fn received(&mut self, topic: &str, _: usize) -> Vec<Received> {
        let published = self.0.published();
        let of_topic = published.iter().filter(|event| event.topic == topic);
        of_topic.map(Received::from).collect()
    }

    fn oversized(&mut self) -> Option<usize> {
        Some(LIMIT)
    }
}
