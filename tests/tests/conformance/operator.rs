//! An interrupted key is never run again by itself: an operator finds it, looks, and releases it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use effectively::ErrorKind;
use effectively_tests::{TestDb, eventually, on_every_database};
use tokio::task::JoinSet;

use crate::held::Held;
use crate::shop::{Shop, ShopDb, ShopError, kind, order_on, shop_key};

on_every_database!(
    interrupted_keys_are_listed_and_released_by_their_id,
    a_key_that_is_not_interrupted_cannot_be_released,
);
on_every_database!(a_key_is_marked_as_interrupted_beside_a_queue_of_other_calls);
on_every_database!([postgres] a_key_in_flight_cannot_be_released);
on_every_database!([mysql] long_transactions_are_looked_for_whatever_a_session_is_saying);

async fn interrupted_keys_are_listed_and_released_by_their_id<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.order("complete").await.expect("an answer");
    assert_eq!(shop.ledger.interrupted().await.expect("a list"), []);
    shop.interrupt("a").await;
    shop.interrupt("b").await;
    let elsewhere = shop.elsewhere();
    let listed = elsewhere.interrupted().await.expect("a list");
    assert_eq!(listed.len(), 2);
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("a clock after 1970")
        .as_secs() as i64;
    for key in &listed {
        assert_eq!(key.scope, "orders");
        assert!((now - key.began_at).abs() < 3600, "{} is now", key.began_at);
    }
    // Asking again and again changes nothing.
    assert_eq!(kind(&shop.order("a").await), Some(ErrorKind::Interrupted));
    assert_eq!(elsewhere.interrupted().await.expect("a list"), listed);
    for key in listed {
        assert!(
            elsewhere
                .release_interrupted(key.id)
                .await
                .expect("a release")
        );
        assert!(
            !elsewhere
                .release_interrupted(key.id)
                .await
                .expect("no release")
        );
    }
    assert_eq!(shop.ledger.interrupted().await.expect("a list"), []);
    for key in ["a", "b"] {
        assert!(!shop.order(key).await.expect("an answer").is_replay());
        assert!(shop.order(key).await.expect("a replay").is_replay());
    }
}

async fn a_key_that_is_not_interrupted_cannot_be_released<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let unknown = shop.ledger.release(&shop_key("a")).await;
    assert!(!unknown.expect("an answer"));
    let first = shop.order("a").await.expect("an answer");
    let complete = shop.ledger.release(&shop_key("a")).await;
    assert!(!complete.expect("an answer"));
    let replay = shop.order("a").await.expect("a replay");
    assert_eq!(replay.recorded(), first.recorded());
}

/// Elsewhere the operator waits until the call has ended, and then there is nothing to release.
async fn a_key_in_flight_cannot_be_released<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let held = Held::by(&shop.ledger, &shop.runs, "a", "").await;
    let in_flight = shop.elsewhere().release(&shop_key("a")).await;
    assert!(!in_flight.expect("an answer"));
    held.finish().await.expect("an answer");
    assert!(shop.order("a").await.expect("a replay").is_replay());
}

/// On SQLite the mark is a write like any other, and the line of writers is long.
async fn a_key_is_marked_as_interrupted_beside_a_queue_of_other_calls<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let mut others = JoinSet::new();
    let arrived = Arc::new(AtomicUsize::new(0));
    let end = if DB::NAME == "MySQL" {
        "commit"
    } else {
        "rollback"
    };
    let answer = shop
        .ledger
        .run(shop_key("a"), async |tx: &mut DB::Connection| {
            for n in 0..100 {
                let (ledger, runs) = (shop.ledger.clone(), shop.runs.clone());
                let work = Duration::from_millis(60);
                let arrived = arrived.clone();
                others.spawn(async move {
                    arrived.fetch_add(1, Ordering::SeqCst);
                    order_on(&ledger, &runs, &format!("{n}"), work).await
                });
            }
            // They stand in line, or have begun where there are many writers.
            eventually(Duration::from_secs(10), async || {
                arrived.load(Ordering::SeqCst) == 100
            })
            .await;
            DB::execute(tx, end).await?;
            Ok::<_, ShopError>(())
        })
        .await;
    assert_eq!(kind(&answer), Some(ErrorKind::TransactionLost));
    assert_eq!(kind(&shop.order("a").await), Some(ErrorKind::Interrupted));
    for answer in others.join_all().await {
        answer.expect("an answer");
    }
    assert_eq!(shop.stored().await, (100, 100, 101));
}

/// MySQL cannot read the engine's list of transactions while a statement has characters that its old `utf8` lacks.
async fn long_transactions_are_looked_for_whatever_a_session_is_saying<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let one_row = "create table notes (n int); insert into notes values (1)";
    shop.db.execute(one_row).await;
    let mut session = shop.db.pool().acquire().await.expect("a connection");
    let said = "update notes set n = 2 where sleep(1) = 0 and '\u{1F34E}' <> ''";
    let saying = tokio::spawn(async move { DB::execute(&mut session, said).await });
    let runs = async || shop.db.busy_sessions().await == 1;
    eventually(Duration::from_secs(10), runs).await;
    let server = shop.ledger.server().await.expect("the server's state");
    assert_eq!(server.long_transactions, Some(Vec::new()));
    assert_eq!(saying.await.expect("no panic").expect("an answer"), 1);
}
