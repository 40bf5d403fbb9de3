//! The outbox under test: events of 200 bytes with 1,000 keys.

use std::borrow::Cow;

use effectively::{Emit, Error, Event, Failure, Key, Ledger};
use effectively_tests::TestDb;
use serde::Serialize;
use sqlx::{PgConnection, PgPool, Postgres};

const TOPIC: &str = "bench.orders";
const KEYS: u64 = 1000;

#[derive(Debug, Serialize)]
pub struct Placed {
    number: u64,
    key: String,
    padding: &'static str,
}

impl Placed {
    pub fn of(number: u64) -> Self {
        Self {
            number,
            key: format!("customer {}", number % KEYS),
            padding: PADDING,
        }
    }
}

/// Fills the JSON up to 200 bytes.
const PADDING: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

impl Event for Placed {
    const TOPIC: &'static str = TOPIC;
    const NAME: &'static str = "order.placed.v1";

    fn partition_key(&self) -> Option<Cow<'_, str>> {
        Some(self.key.as_str().into())
    }
}

/// A database with the toolkit's tables.
pub async fn open(db: &TestDb<Postgres>) -> Ledger<Postgres> {
    let ledger = Ledger::new(pool(db));
    ledger.migrate().await.expect("the toolkit's tables");
    ledger
}

/// As the documentation says: without the ping before each use.
pub fn pool(db: &TestDb<Postgres>) -> PgPool {
    let options = sqlx::postgres::PgPoolOptions::new()
        .max_connections(20)
        .test_before_acquire(false);
    db.pool_from(options, None)
}

/// Sends all events to this topic. In an application the topic belongs to the event's type; here each round has its own.
pub async fn send_to(db: &TestDb<Postgres>, topic: &str) {
    db.execute(&format!(
        "create function topic_of_the_round() returns trigger language plpgsql as \
         $$ begin new.topic := '{topic}'; return new; end $$"
    ))
    .await;
    db.execute(
        "create trigger topic_of_the_round before insert on effectively_outbox \
         for each row execute function topic_of_the_round()",
    )
    .await;
}

/// Leaves so many events, and lets the server do what it does after a load.
pub async fn fill(db: &TestDb<Postgres>, ledger: &Ledger<Postgres>, events: u64) {
    insert(ledger, events).await;
    db.execute("vacuum analyze effectively_outbox").await;
    db.execute("checkpoint").await;
}

/// In calls of 500 each.
pub async fn insert(ledger: &Ledger<Postgres>, events: u64) {
    for first in (0..events).step_by(500) {
        let numbers = first..(first + 500).min(events);
        emit(ledger, Emit::new(()).events(numbers.map(Placed::of))).await;
    }
}

/// One call with one event.
pub async fn emit_one(ledger: &Ledger<Postgres>, number: u64) {
    emit(ledger, Emit::new(()).event(Placed::of(number))).await;
}

async fn emit(ledger: &Ledger<Postgres>, emission: Emit<()>) {
    let id = sqlx::types::Uuid::new_v4();
    let key = Key::new("emit", &[&id]).expect("a key");
    let call = ledger.call(key);
    let emitted: Result<_, Failure<Error>> = call
        .run_with_events(async |_: &mut PgConnection| Ok(emission))
        .await;
    emitted.expect("a committed call");
}
