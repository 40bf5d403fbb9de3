//! A call that takes long, or hangs, holds its own key and no other, at every isolation level.

use std::sync::Arc;
use std::time::{Duration, Instant};

use effectively::{ErrorKind, Failure, Isolation, Ledger};
use effectively_tests::{TestDb, on_every_database};
use tokio::task::{JoinHandle, JoinSet};

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

/// Calls beside a standing one, and as many alone.
const CALLS: usize = 20;

/// How many times longer a call beside a standing one may take. One that waits takes hundreds of times as long: until a lock's wait is
/// over, which is a second or more.
const TIMES: u32 = 10;

async fn other_keys_are_served_beside_a_standing_call<DB: ShopDb>(db: TestDb<DB>) {
    let db = open(db).await;
    let ledger = Ledger::new(db.pool().clone());
    for level in LEVELS {
        // In turn, so that whatever else the machine does meets both alike.
        let (mut beside, mut alone) = (Vec::new(), Vec::new());
        for number in 0..CALLS {
            let standing = Standing::up(&ledger, format!("standing {number} {level:?}"), level);
            let standing = standing.await;
            beside.push(time_of(&ledger, &format!("beside {number} {level:?}"), level).await);
            standing.finish().await;
            alone.push(time_of(&ledger, &format!("alone {number} {level:?}"), level).await);
        }
        let (beside, alone) = (median(beside), median(alone));
        assert!(
            beside < alone * TIMES,
            "{level:?}: {beside:?} beside a standing call, {alone:?} alone"
        );
    }
    let calls = (3 * CALLS * LEVELS.len()) as i64;
    assert_eq!(Book::of(&db).await.claims, (calls, 0));
}

/// A call that stands in its body.
struct Standing {
    gate: Arc<Gate>,
    call: JoinHandle<Result<(), Failure<ShopError>>>,
}

impl Standing {
    async fn up<DB: ShopDb>(ledger: &Ledger<DB>, key: String, level: Isolation) -> Self {
        let gate = Arc::new(Gate::default());
        let call = tokio::spawn({
            let (ledger, gate) = (ledger.clone(), gate.clone());
            async move { call(&ledger, &key, level, Some(gate)).await }
        });
        gate.reached().await;
        Self { gate, call }
    }

    async fn finish(self) {
        self.gate.open();
        self.call.await.expect("its task").expect("an answer");
    }
}

async fn time_of<DB: ShopDb>(ledger: &Ledger<DB>, key: &str, level: Isolation) -> Duration {
    let begun = Instant::now();
    call(ledger, key, level, None).await.expect("an answer");
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
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
