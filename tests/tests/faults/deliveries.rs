//! What becomes of the events: relays hand them to a handler that takes each once.

use std::time::Duration;

use effectively::sink::{Effect, EffectError, EffectKey};
use effectively::{Envelope, Key, Ledger, Relay, Route};
use effectively_tests::{TestDb, eventually};

use crate::marks::Book;
use crate::shop::{ShopDb, ShopError};

/// C10: how long the outbox may take to drain when the faults have stopped.
const DRAINED: Duration = Duration::from_secs(30);

/// The table that the handler writes to. No constraint hides a mark that comes twice.
pub async fn open<DB: ShopDb>(db: &TestDb<DB>) {
    db.execute("create table received (item varchar(100) not null)")
        .await;
}

/// A relay of this process, and the handler that it calls. `taken` hears of each event that was taken, and whether it had been
/// before.
pub fn relay<DB: ShopDb>(ledger: &Ledger<DB>, taken: fn(bool)) -> Relay<DB> {
    let consumer = ledger.clone();
    let handler = Effect::new(move |event: Envelope, key: EffectKey| {
        let consumer = consumer.clone();
        async move { receive(&consumer, event, key).await.map(taken) }
    });
    Relay::builder(ledger.clone())
        .route("orders", Route::to(handler).attempts(1000))
        .lease(Duration::from_secs(1))
        .poll(Duration::from_millis(20))
        // No event is set aside: neither as one that kills its relay, nor for the faults of the database.
        .max_crashes(1000)
        .build()
        .expect("a relay")
}

async fn receive<DB: ShopDb>(
    ledger: &Ledger<DB>,
    event: Envelope,
    key: EffectKey,
) -> Result<bool, EffectError> {
    let mark = event.partition_key.unwrap_or_default();
    let key = Key::new("received", &[&key.as_str()]).expect("a key");
    let received = ledger.run(key, async |tx: &mut DB::Connection| {
        DB::execute(tx, &format!("insert into received values ('{mark}')")).await?;
        Ok::<_, ShopError>(())
    });
    match received.await {
        Ok(outcome) => Ok(outcome.is_replay()),
        Err(_) => Err(EffectError::retry("the database failed")),
    }
}

/// The book once the outbox is empty, with what was received for what was emitted.
pub async fn delivered<DB: ShopDb>(db: &TestDb<DB>) -> Book {
    let ledger = Ledger::new(db.pool().clone());
    let pending = async || ledger.outbox().pending().await.expect("the outbox");
    let drained = relay(&ledger, |_| {}).run(eventually(DRAINED, async || pending().await == 0));
    drained.await.expect("an end in order");
    Book {
        events: db.texts("select item from received").await,
        ..Book::of(db).await
    }
}
