//! What a sink knows to be published when a relay takes a partition over: by the database, the place and the id of each event.

use std::sync::{Arc, Mutex};

use effectively::Envelope;
use effectively::sink::{Delivery, EventRef, Memory, Sink, Unavailable};
use effectively_tests::{TestDb, eventually, on_every_database};
use sqlx::types::Uuid;

use crate::shop::{Numbered, Running, SOON, Shop, ShopDb, brisk};

on_every_database!(
    only_what_the_sink_names_in_full_counts_as_published,
    events_carry_the_identity_of_their_database,
);

/// Remembers what it was given, and takes nothing.
#[derive(Clone, Default)]
struct Down(Arc<Mutex<Vec<Envelope>>>);

impl Sink for Down {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        self.0.lock().expect("the events").extend_from_slice(batch);
        vec![Delivery::unavailable("down"); batch.len()]
    }
}

/// Publishes, and has a record of earlier times.
struct Recorded {
    sink: Memory,
    record: Vec<EventRef>,
}

impl Sink for Recorded {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        self.sink.publish(batch).await
    }

    async fn published(&self, _: u16) -> Result<Vec<EventRef>, Unavailable> {
        Ok(self.record.clone())
    }
}

/// What the outbox holds, as a sink sees it.
async fn seen<DB: ShopDb>(shop: &Shop<DB>, count: usize) -> Vec<Envelope> {
    let down = Down::default();
    let relay = Running::start(brisk(shop.ledger.clone()).route("numbers", down.clone()));
    let events = || {
        let mut events = down.0.lock().expect("the events").clone();
        events.sort_by_key(|event| event.outbox_id);
        events.dedup_by_key(|event| event.outbox_id);
        events
    };
    eventually(SOON, async || events().len() == count).await;
    relay.stop().await;
    events()
}

async fn only_what_the_sink_names_in_full_counts_as_published<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let keys: Vec<String> = (0..8).map(|key| format!("key {key}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    shop.numbers(&keys, 0..1).await;
    let events = seen(&shop, keys.len()).await;
    let mut record: Vec<EventRef> = events.iter().map(EventRef::from).collect();
    // The same place in another database, another event at the same place, the same event at another place.
    record[5].database = Uuid::new_v4();
    record[6].id = Uuid::new_v4();
    record[7].outbox_id += 1_000;
    let sink = Memory::new();
    let recorded = Recorded {
        sink: sink.clone(),
        record,
    };
    let relay = Running::start(brisk(shop.ledger.clone()).route("numbers", recorded));
    shop.drained().await;
    relay.stop().await;
    let mut published: Vec<String> = sink
        .published()
        .iter()
        .map(|event| Numbered::from(event).key)
        .collect();
    published.sort();
    let mut rest: Vec<String> = events[5..]
        .iter()
        .map(|event| Numbered::from(event).key)
        .collect();
    rest.sort();
    assert_eq!(published, rest);
    let letters = shop.ledger.outbox().dead_letters(0, 10).await;
    assert!(letters.expect("a list").is_empty());
}

async fn events_carry_the_identity_of_their_database<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["a"], 0..1).await;
    let database = seen(&shop, 1).await.remove(0).database;
    let id = match DB::NAME {
        "PostgreSQL" => "replace(id::text, '-', '')",
        _ => "lower(hex(id))",
    };
    let id = shop
        .db
        .texts(&format!("select {id} from effectively_identity"))
        .await;
    assert_eq!(id, [database.simple().to_string()]);
}
