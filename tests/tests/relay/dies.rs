//! Relays that are killed: nothing is lost, the order holds, and an event that kills its relay is set aside.

use std::time::Duration;

use effectively::Envelope;
use effectively::sink::{Delivery, Memory, Sink};
use effectively_tests::{TestDb, Worker, on_every_database};

use crate::shop::{Numbered, Shop, ShopDb, brisk};

on_every_database!(an_event_that_kills_its_relay_becomes_a_dead_letter);

/// Ends the process over one event, and tells the parent of all others.
struct Deadly {
    sink: Memory,
}

impl Sink for Deadly {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let deadly = |event: &Envelope| {
            event.partition_key.as_deref() == Some("bob") && Numbered::from(event).number == 3
        };
        if batch.iter().any(deadly) {
            std::process::abort();
        }
        self.sink.publish(batch).await
    }

    fn keeps_order(&self) -> bool {
        true
    }
}

async fn an_event_that_kills_its_relay_becomes_a_dead_letter<DB: ShopDb>(db: TestDb<DB>) {
    if Worker::input::<()>().is_some() {
        let shop = Shop::opened(db);
        let sink = Deadly {
            sink: Memory::new(),
        };
        let relay = brisk(shop.ledger.clone())
            .route("numbers", sink)
            .max_crashes(2);
        let relay = relay.build().expect("a relay");
        let ended = relay.run(async {
            while shop.pending().await > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        ended.await.expect("an end in order");
        Worker::say("drained");
        return;
    }
    let shop = Shop::open(db).await;
    shop.numbers(&["ada", "bob", "cy"], 0..10).await;
    let mut deaths = 0;
    loop {
        let mut worker = shop.db.worker(&());
        if worker.exit().await.success() {
            break;
        }
        deaths += 1;
        assert!(deaths < 12, "it never ends");
    }
    assert_eq!(shop.pending().await, 0);
    let letters = shop.ledger.outbox().dead_letters(0, 10).await;
    let letters = letters.expect("the dead letters");
    let [letter] = &letters[..] else {
        panic!("{} dead letters after {deaths} deaths", letters.len());
    };
    let event: Numbered = serde_json::from_slice(&letter.data).expect("its body");
    assert_eq!((event.key.as_str(), event.number), ("bob", 3));
    assert_eq!(
        letter.error,
        "a relay died 2 times while it published this event"
    );
}
