//! A call that takes long, or hangs, holds its own key and no other, at every isolation level.

use std::sync::Arc;
use std::time::{Duration, Instant};

use effectively::{ErrorKind, Failure, Isolation, Ledger};
use effectively_tests::{TestDb, on_every_database};
use tokio::task::JoinSet;

use crate::marks::{Book, Gate, open};
use crate::shop::{ShopDb, ShopError, kind, shop_key};

const LEVELS: [Isolation; 3] = [
    Isolation::ReadCommitted,
    Isolation::RepeatableRead,
    Isolation::Serializable,
];

// SQLite has one writer: there, a standing call holds up all others.
on_every_database!([postgres, mysql]
    other_keys_are_served_beside_a_standing_call,
    new_keys_do_not_fall_over_each_other,
);

async fn other_keys_are_served_beside_a_standing_call<DB: ShopDb>(db: TestDb<DB>) {
    let db = open(db).await;
    let ledger = Ledger::new(db.pool().clone());
    for level in LEVELS {
        let gate = Arc::new(Gate::default());
        let standing = tokio::spawn({
            let (ledger, gate) = (ledger.clone(), gate.clone());
            async move { call(&ledger, &format!("standing {level:?}"), level, Some(gate)).await }
        });
        gate.reached().await;
        let begun = Instant::now();
        for number in 0..20 {
            let key = format!("{number} {level:?}");
            call(&ledger, &key, level, None).await.expect("an answer");
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(1), "{level:?}: {took:?}");
        gate.open();
        standing.await.expect("its task").expect("an answer");
    }
    assert_eq!(Book::of(&db).await.claims, (21 * 3, 0));
}

async fn new_keys_do_not_fall_over_each_other<DB: ShopDb>(db: TestDb<DB>) {
    let db = open(db).await;
    let ledger = Ledger::new(db.pool().clone());
    for level in LEVELS {
        let mut calls = JoinSet::new();
        for number in 0..60 {
            let ledger = ledger.clone();
            calls.spawn(async move {
                let key = format!("{number} {level:?}");
                // The server may see a conflict in any two serializable calls: then it says so, and nothing was done.
                let mut conflicts = if matches!(level, Isolation::Serializable) {
                    100
                } else {
                    0
                };
                loop {
                    let answer = call(&ledger, &key, level, None).await;
                    if conflicts == 0 || kind(&answer) != Some(ErrorKind::NotCommitted) {
                        return answer.expect("an answer");
                    }
                    conflicts -= 1;
                }
            });
        }
        calls.join_all().await;
    }
    assert_eq!(Book::of(&db).await.claims, (60 * 3, 0));
}

/// Writes nothing but the claim, so that only claims can meet.
async fn call<DB: ShopDb>(
    ledger: &Ledger<DB>,
    key: &str,
    level: Isolation,
    gate: Option<Arc<Gate>>,
) -> Result<(), Failure<ShopError>> {
    let call = ledger.call(shop_key(key)).isolation(level);
    let answer = call
        .run(async |_: &mut DB::Connection| {
            if let Some(gate) = gate {
                gate.stand().await;
            }
            Ok::<_, ShopError>(())
        })
        .await;
    answer.map(drop)
}
