//! A purge deletes what has expired and nothing else, in batches, beside traffic.

use std::time::Duration;

use effectively::{ErrorKind, Ledger};
use effectively_tests::{TestDb, on_every_database};
use tokio::task::JoinSet;

use crate::held::Held;
use crate::shop::{Shop, ShopDb, in_the_past, kind, order_on, place, shop_key};

on_every_database!(
    a_purge_deletes_what_has_expired_and_nothing_else,
    a_purge_of_many_batches_deletes_all_of_them,
    an_interrupted_key_is_never_purged,
    a_purge_runs_beside_traffic,
);
on_every_database!([postgres, mysql] a_purge_does_not_wait_for_a_call_in_flight);

async fn a_purge_deletes_what_has_expired_and_nothing_else<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    assert_eq!(shop.ledger.purge().await.expect("a purge"), 0);
    shop.order("old").await.expect("an answer");
    shop.expire().await;
    let kept = shop.order("new").await.expect("an answer");
    assert_eq!(shop.ledger.purge().await.expect("a purge"), 1);
    // Outcomes go, effects and events stay.
    assert_eq!(shop.stored().await, (2, 2, 1));
    let replay = shop.order("new").await.expect("a replay");
    assert_eq!(replay.recorded(), kept.recorded());
    assert!(!shop.order("old").await.expect("an answer").is_replay());
}

async fn a_purge_of_many_batches_deletes_all_of_them<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.order("kept").await.expect("an answer");
    let past = in_the_past::<DB>();
    let columns =
        "insert into effectively_claims (id, scope, attempt, outcome, created_at, expires_at)";
    let values = match DB::NAME {
        "PostgreSQL" => {
            "select sha256(n::text::bytea), 'old', '\\x00', '\\x00', {past}, {past} from generate_series(1, 2500) as n"
        }
        "MySQL" => {
            "with recursive n(n) as (select 1 union all select n + 1 from n where n < 50) \
             select unhex(sha2(uuid(), 256)), 'old', unhex(repeat('00', 16)), x'00', {past}, {past} from n as a, n as b"
        }
        _ => {
            "with recursive n(n) as (select 1 union all select n + 1 from n limit 2500) \
             select randomblob(32), 'old', x'00', x'00', {past}, {past} from n"
        }
    };
    let insert = format!("{columns} {}", values.replace("{past}", past));
    assert_eq!(shop.db.execute(&insert).await, 2500);
    assert_eq!(shop.ledger.purge().await.expect("a purge"), 2500);
    assert_eq!(shop.claims().await, 1);
    assert!(shop.order("kept").await.expect("a replay").is_replay());
    shop.assert_healthy().await;
}

async fn an_interrupted_key_is_never_purged<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.interrupt("a").await;
    shop.expire().await;
    assert_eq!(shop.ledger.purge().await.expect("a purge"), 0);
    assert_eq!(kind(&shop.order("a").await), Some(ErrorKind::Interrupted));
}

/// 200 calls whose outcomes expire at once, 200 whose outcomes stay, and purges all the while.
async fn a_purge_runs_beside_traffic<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let mut calls = JoinSet::new();
    for caller in 0..4 {
        let (ledger, runs) = (shop.ledger.clone(), shop.runs.clone());
        calls.spawn(async move {
            for n in 0..50 {
                let key = format!("short {caller} {n}");
                let call = ledger
                    .call(shop_key(&key))
                    .retention(Duration::from_millis(1));
                let short = place(call, &runs, &key, async { Ok(()) }).await;
                assert!(!short.expect("an answer").is_replay());
                let key = format!("long {caller} {n}");
                let long = order_on(&ledger, &runs, &key, Duration::ZERO).await;
                assert!(!long.expect("an answer").is_replay());
            }
        });
    }
    let elsewhere = shop.elsewhere();
    let mut purged = 0;
    while !calls.is_empty() {
        purged += elsewhere.purge().await.expect("a purge beside traffic");
        while let Some(done) = calls.try_join_next() {
            done.expect("a caller");
        }
    }
    purged += purge_the_rest(&shop.ledger).await;
    assert_eq!(purged, 200);
    assert_eq!(shop.stored().await, (400, 400, 200));
    let replay = shop.order("long 3 49").await.expect("a replay");
    assert!(replay.is_replay());
}

async fn purge_the_rest<DB: ShopDb>(ledger: &Ledger<DB>) -> u64 {
    ledger.purge().await.expect("a purge")
}

async fn a_purge_does_not_wait_for_a_call_in_flight<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.order("old").await.expect("an answer");
    shop.order("taken over").await.expect("an answer");
    shop.expire().await;
    let held = Held::by(&shop.ledger, &shop.runs, "taken over", "").await;
    let elsewhere = shop.elsewhere();
    let purge = tokio::time::timeout(Duration::from_secs(10), elsewhere.purge()).await;
    let purged = purge.expect("no wait").expect("a purge");
    assert_eq!(purged, 1);
    assert!(!held.finish().await.expect("an answer").is_replay());
    assert_eq!(shop.claims().await, 1);
}
