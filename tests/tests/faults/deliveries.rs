//! C3 to C5: what becomes of the events. Relays hand them to a handler that takes each once.

use std::collections::BTreeMap;
use std::time::Duration;

use effectively::sink::{Effect, EffectError, EffectKey};
use effectively::{Emit, Envelope, Key, Ledger, Relay, Route};
use effectively_tests::{TestDb, eventually};

use crate::marks::Book;
use crate::shop::{OrderPlaced, ShopDb, ShopError};

/// C10: how long the outbox may take to drain when the faults have stopped.
pub const DRAINED: Duration = Duration::from_secs(30);

/// How many events a call emits, all of one partition key.
const EVENTS: usize = 3;

/// An answer and the events of its call, numbered.
pub fn emission(mark: &str) -> Emit<String> {
    let event = || OrderPlaced::of(mark);
    (0..EVENTS).fold(Emit::new(mark.to_owned()), |emission, number| {
        let numbered = emission.event(event());
        numbered.header("number", number.to_string())
    })
}

/// The table that the handler writes to, in the order of its transactions. No constraint hides what comes twice.
pub async fn open<DB: ShopDb>(db: &TestDb<DB>) {
    let counted = match DB::NAME {
        "PostgreSQL" => "bigserial primary key",
        "MySQL" => "bigint primary key auto_increment",
        _ => "integer primary key autoincrement",
    };
    let columns = "item varchar(100) not null, number varchar(10) not null";
    db.execute(&format!(
        "create table received (place {counted}, {columns})"
    ))
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
    let number = event.headers.get("number").cloned().unwrap_or_default();
    // The events of a quarter of the calls are refused once, so that a relay has something to lose that its sink did not take. Of another
    // quarter the first answer is lost, so that something comes again that was taken. The last bits of an id are its place in the call.
    let part = (event.id.as_u128() >> 64) % 4;
    let first = event.attempts == 0;
    if first && part == 0 {
        return Err(EffectError::retry("not the first time"));
    }
    let key = Key::new("received", &[&key.as_str()]).expect("a key");
    let received = ledger.run(key, async |tx: &mut DB::Connection| {
        let values = format!("('{mark}', '{number}')");
        DB::execute(
            tx,
            &format!("insert into received (item, number) values {values}"),
        )
        .await?;
        Ok::<_, ShopError>(())
    });
    match received.await {
        Ok(_) if first && part == 1 => Err(EffectError::retry("the answer is lost")),
        Ok(outcome) => Ok(outcome.is_replay()),
        Err(_) => Err(EffectError::retry("the database failed")),
    }
}

/// The book once the outbox is empty, with what was received for what was emitted: a mark whose events all came, once each and
/// in their order, is one entry, and any other is one that no order has.
pub async fn delivered<DB: ShopDb>(db: &TestDb<DB>) -> Book {
    let ledger = Ledger::new(db.pool().clone());
    let pending = async || ledger.outbox().pending().await.expect("the outbox");
    let drained = relay(&ledger, |_| {}).run(eventually(DRAINED, async || pending().await == 0));
    drained.await.expect("an end in order");
    let marks = db.texts("select item from received order by place").await;
    let numbers = db.texts("select number from received order by place").await;
    let mut of_mark: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (mark, number) in marks.into_iter().zip(numbers) {
        of_mark.entry(mark).or_default().push(number);
    }
    let whole: Vec<_> = (0..EVENTS).map(|number| number.to_string()).collect();
    let entry = |(mark, numbers)| {
        if numbers == whole {
            mark
        } else {
            format!("{mark} with the events {numbers:?}")
        }
    };
    Book {
        events: of_mark.into_iter().map(entry).collect(),
        ..Book::of(db).await
    }
}
