//! I3: an event that moves from one table to another is in exactly one of them, whichever of the statements fails, and moves once
//! they succeed again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use effectively::sink::{Delivery, Memory};
use effectively::{Ledger, Relay, Route};
use effectively_tests::{TestDb, eventually, on_every_database};

use crate::marks::{Body, answered, open, order};
use crate::shop::{SOON, ShopDb};

on_every_database!(an_event_is_in_one_table_whichever_statement_fails);

async fn an_event_is_in_one_table_whichever_statement_fails<DB: ShopDb>(db: TestDb<DB>) {
    assert_eq!(moved_with_failing_statements(db).await, Ok(()));
}

/// A way between two tables.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// From the outbox to the dead letters.
    Bury,
    /// The way back.
    Retry,
    /// From the outbox to what was published.
    Keep,
}

impl Move {
    fn tables(self) -> [&'static str; 2] {
        match self {
            Self::Bury => ["effectively_outbox", "effectively_dead_letters"],
            Self::Retry => ["effectively_dead_letters", "effectively_outbox"],
            Self::Keep => ["effectively_outbox", "effectively_published"],
        }
    }
}

/// In how many tables an event is after each of the two statements of each move has failed.
pub async fn moved_with_failing_statements<DB: ShopDb>(db: TestDb<DB>) -> Result<(), String> {
    let db = open(db).await;
    let ledger = Ledger::new(db.pool().clone());
    for way in [Move::Bury, Move::Retry, Move::Keep] {
        let [from, to] = way.tables();
        for (statement, table) in [("insert", to), ("delete", from)] {
            answered(order(&ledger, &format!("{way:?} {statement}"), Body::Returns).await);
            if matches!(way, Move::Retry) {
                go(&db, &ledger, Move::Bury).await;
            }
            refuse(&db, statement, table).await;
            fail(&db, &ledger, way).await;
            let found = places(&db).await;
            if found != 1 {
                return Err(format!("{found} places: {way:?} without the {statement}"));
            }
            allow(&db, table).await;
            go(&db, &ledger, way).await;
            let arrived = db.number(&format!("select count(*) from {to}")).await;
            if (places(&db).await, arrived) != (1, 1) {
                return Err(format!("{way:?} does not go on after the {statement}"));
            }
            db.execute(&format!("delete from {to}")).await;
        }
    }
    Ok(())
}

/// In how many places the only event is.
async fn places<DB: ShopDb>(db: &TestDb<DB>) -> i64 {
    let count = |table| format!("(select count(*) from effectively_{table})");
    let [outbox, dead, published] = ["outbox", "dead_letters", "published"].map(count);
    db.number(&format!("select {outbox} + {dead} + {published}"))
        .await
}

/// Moves the event while one of the statements fails.
async fn fail<DB: ShopDb>(db: &TestDb<DB>, ledger: &Ledger<DB>, way: Move) {
    if matches!(way, Move::Retry) {
        let id = db.number("select id from effectively_dead_letters").await;
        assert!(ledger.outbox().retry(id).await.is_err());
        return;
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let relay = relay(ledger, sink(way, &asked));
    // It has tried to settle the batch before it ends.
    let is_asked = async || asked.load(Ordering::SeqCst) > 0;
    let ended = relay.run(eventually(SOON, is_asked));
    ended.await.expect("an end in order");
}

/// Moves the event.
async fn go<DB: ShopDb>(db: &TestDb<DB>, ledger: &Ledger<DB>, way: Move) {
    if matches!(way, Move::Retry) {
        let id = db.number("select id from effectively_dead_letters").await;
        assert!(ledger.outbox().retry(id).await.expect("an answer"));
        return;
    }
    let [from, _] = way.tables();
    let left = format!("select count(*) from {from}");
    let relay = relay(ledger, sink(way, &Arc::default()));
    let moved = async || db.number(&left).await == 0;
    let ended = relay.run(eventually(SOON, moved));
    ended.await.expect("an end in order");
}

fn sink(way: Move, asked: &Arc<AtomicUsize>) -> Memory {
    let asked = asked.clone();
    Memory::new().judged_by(move |_| {
        asked.fetch_add(1, Ordering::SeqCst);
        matches!(way, Move::Bury).then(|| Delivery::refused_for_good("never"))
    })
}

fn relay<DB: ShopDb>(ledger: &Ledger<DB>, sink: Memory) -> Relay<DB> {
    let pause = Duration::from_millis(20);
    Relay::builder(ledger.clone())
        .route("orders", Route::to(sink).backoff(pause, pause))
        .lease(Duration::from_secs(1))
        .poll(pause)
        .grace(Duration::from_secs(1))
        .keep_published(Duration::from_secs(3600))
        .build()
        .expect("a relay")
}

/// From now on, this statement fails on this table.
async fn refuse<DB: ShopDb>(db: &TestDb<DB>, statement: &str, table: &str) {
    let on = format!("create trigger refuses before {statement} on {table}");
    let sql = match DB::NAME {
        "PostgreSQL" => format!(
            "create or replace function refuses() returns trigger language plpgsql as \
             $$ begin raise exception 'refused'; end $$; {on} for each row execute function refuses()"
        ),
        "MySQL" => {
            format!("{on} for each row signal sqlstate '45000' set message_text = 'refused'")
        }
        _ => format!("{on} begin select raise(abort, 'refused'); end"),
    };
    db.execute(&sql).await;
}

async fn allow<DB: ShopDb>(db: &TestDb<DB>, table: &str) {
    let of = match DB::NAME {
        "PostgreSQL" => format!("on {table}"),
        _ => String::new(),
    };
    db.execute(&format!("drop trigger refuses {of}")).await;
}
