//! A ledger that reuses connections: its calls pass the pool by, and nobody waits for a connection because of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use effectively::{ErrorKind, Ledger};
use effectively_tests::{TestDb, eventually, on_every_database};
use sqlx::Pool;
use sqlx::pool::PoolOptions;
use tokio::sync::Notify;

use crate::shop::{SOON, Shop, ShopDb, ShopError, kind, shop_key};

on_every_database!(
    calls_in_a_row_pass_the_pool_by_only_when_the_ledger_was_told_so,
    others_get_a_connection_while_calls_follow_each_other,
    calls_share_a_connection_that_is_reused,
    a_connection_that_no_call_takes_goes_back,
    a_closed_pool_has_its_connections_back,
);
on_every_database!([postgres, mysql] a_call_that_waits_goes_before_one_that_comes_later);

/// A shop whose ledger reuses the connections of this pool.
async fn open<DB: ShopDb>(db: TestDb<DB>, pool: Pool<DB>) -> Shop<DB> {
    let mut shop = Shop::open(db).await;
    let ledger = Ledger::builder(pool).reuse_connections(true);
    shop.ledger = ledger.build().expect("a ledger");
    shop
}

/// A pool of one connection, and how often it was released.
fn counting<DB: ShopDb>(db: &TestDb<DB>) -> (Pool<DB>, Arc<AtomicU64>) {
    let releases = Arc::new(AtomicU64::new(0));
    let seen = releases.clone();
    let options = PoolOptions::new()
        .max_connections(1)
        .after_release(move |_, _| {
            seen.fetch_add(1, Ordering::SeqCst);
            Box::pin(async { Ok(true) })
        });
    (db.pool_from(options, None), releases)
}

async fn is_idle<DB: ShopDb>(pool: &Pool<DB>) {
    eventually(SOON, async || {
        pool.size() > 0 && pool.num_idle() == pool.size() as usize
    })
    .await;
}

async fn calls_in_a_row_pass_the_pool_by_only_when_the_ledger_was_told_so<DB: ShopDb>(
    db: TestDb<DB>,
) {
    const CALLS: u64 = 50;
    let (pool, releases) = counting(&db);
    let mut shop = open(db, pool.clone()).await;
    let mut nth = 0;
    // Within the few milliseconds, which a busy machine does not always keep.
    eventually(SOON, async || {
        let before = releases.load(Ordering::SeqCst);
        for _ in 0..CALLS {
            nth += 1;
            let key = nth.to_string();
            assert!(!shop.order(&key).await.expect("an answer").is_replay());
            assert!(shop.order(&key).await.expect("a replay").is_replay());
        }
        is_idle(&pool).await;
        releases.load(Ordering::SeqCst) - before < CALLS
    })
    .await;
    assert_eq!(shop.orders().await, nth);
    assert_eq!(pool.size(), 1);

    let (pool, releases) = counting(&shop.db);
    shop.ledger = Ledger::new(pool.clone());
    for key in 0..CALLS {
        let answer = shop.order(&format!("through {key}")).await;
        assert!(!answer.expect("an answer").is_replay());
    }
    is_idle(&pool).await;
    assert!(releases.load(Ordering::SeqCst) >= CALLS);
}

async fn others_get_a_connection_while_calls_follow_each_other<DB: ShopDb>(db: TestDb<DB>) {
    let pool = db.pool_with(1, None);
    let shop = open(db, pool.clone()).await;
    let enough = AtomicBool::new(false);
    let calls = async {
        let mut calls = 0;
        while !enough.load(Ordering::SeqCst) {
            calls += 1;
            let answer = shop.order(&calls.to_string()).await;
            assert!(!answer.expect("an answer").is_replay());
        }
        calls
    };
    let others = async {
        for _ in 0..5 {
            drop(pool.acquire().await.expect("a connection in its turn"));
        }
        enough.store(true, Ordering::SeqCst);
    };
    let (calls, ()) = tokio::join!(calls, others);
    assert_eq!(shop.orders().await, calls);
}

async fn calls_share_a_connection_that_is_reused<DB: ShopDb>(db: TestDb<DB>) {
    let pool = db.pool_with(1, None);
    let shop = Arc::new(open(db, pool.clone()).await);
    let calls = (0..10).map(|caller| {
        let shop = shop.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                let answer = shop.order(&format!("{caller} {n}")).await;
                assert!(!answer.expect("an answer").is_replay());
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("a caller");
    }
    assert_eq!(shop.stored().await, (200, 200, 200));
    is_idle(&pool).await;
    assert_eq!(pool.size(), 1);
}

async fn a_call_that_waits_goes_before_one_that_comes_later<DB: ShopDb>(db: TestDb<DB>) {
    let pool = db.pool_with(1, None);
    let shop = open(db, pool).await;
    for round in 0..5 {
        let (stands, goes_on) = (Notify::new(), Notify::new());
        let turns = Mutex::new(Vec::new());
        let call = async |name: &'static str| {
            let body = async |_: &mut DB::Connection| {
                turns.lock().expect("the turns").push(name);
                Ok::<_, ShopError>(())
            };
            let key = shop_key(&format!("{round} {name}"));
            shop.ledger.run(key, body).await.expect("an answer");
        };
        let first = async {
            let body = async |_: &mut DB::Connection| {
                stands.notify_one();
                goes_on.notified().await;
                Ok::<_, ShopError>(())
            };
            let key = shop_key(&format!("{round} first"));
            shop.ledger.run(key, body).await.expect("an answer");
            call("later").await;
        };
        let second = async {
            stands.notified().await;
            // It is polled, and so waits for the only connection, before the other goes on.
            tokio::join!(call("waiting"), async { goes_on.notify_one() });
        };
        tokio::join!(first, second);
        let turns = turns.into_inner().expect("the turns");
        assert_eq!(turns, ["waiting", "later"], "in round {round}");
    }
}

async fn a_connection_that_no_call_takes_goes_back<DB: ShopDb>(db: TestDb<DB>) {
    let pool = db.pool_with(3, None);
    let shop = open(db, pool.clone()).await;
    for round in 0..10 {
        let keys = [0, 1, 2].map(|key| format!("{round} {key}"));
        let [a, b, c] = &keys;
        let answers = tokio::join!(shop.order(a), shop.order(b), shop.order(c));
        assert!(answers.0.is_ok() && answers.1.is_ok() && answers.2.is_ok());
        is_idle(&pool).await;
    }
    // Also without the ledger that kept it.
    shop.order("last").await.expect("an answer");
    let Shop { db, .. } = shop;
    is_idle(&pool).await;
    assert_eq!(db.number("select count(*) from orders").await, 31);
}

async fn a_closed_pool_has_its_connections_back<DB: ShopDb>(db: TestDb<DB>) {
    let pool = db.pool_with(3, None);
    let shop = open(db, pool.clone()).await;
    shop.order("a").await.expect("an answer");
    pool.close().await;
    assert_eq!(pool.size(), 0);
    let refused = shop.order("b").await;
    assert_eq!(kind(&refused), Some(ErrorKind::Unavailable));
}
