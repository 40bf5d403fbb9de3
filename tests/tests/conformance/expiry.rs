//! I1, I12: an outcome is kept for its retention, by the database's clock; after that the key executes once more, and only once.

use std::collections::BTreeSet;
use std::time::Duration;

use effectively::{ErrorKind, Ledger};
use effectively_tests::{TestDb, eventually, on_every_database};
use tokio::task::JoinSet;

use crate::held::Held;
use crate::shop::{SOON, Shop, ShopDb, ShopError, kind, order_on, place, shop_key};

on_every_database!([postgres, mysql] who_may_not_wait_is_refused_at_once_while_an_expired_key_is_taken_over);

on_every_database!(
    a_takeover_in_flight_elsewhere_is_waited_for_and_replayed,
    a_key_within_its_retention_is_replayed,
    a_retention_ends_by_itself,
    the_retention_of_the_call_goes_before_that_of_the_ledger,
    an_expired_key_executes_once_more_for_twenty_callers,
    an_expired_key_whose_new_call_fails_stays_free,
);

async fn a_key_within_its_retention_is_replayed<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let hour = Duration::from_secs(3600);
    for expected in [false, true, true] {
        let call = shop.ledger.call(shop_key("a")).retention(hour);
        let answer = place(call, &shop.runs, "a", async { Ok(()) }).await;
        assert_eq!(answer.expect("an answer").is_replay(), expected);
    }
    assert_eq!(shop.runs(), 1);
}

async fn executes_again_soon<DB: ShopDb>(
    shop: &Shop<DB>,
    ledger: &Ledger<DB>,
    own: Option<Duration>,
) {
    eventually(SOON, async || {
        let mut call = ledger.call(shop_key("a"));
        if let Some(retention) = own {
            call = call.retention(retention);
        }
        place(call, &shop.runs, "a", async { Ok(()) })
            .await
            .expect("an answer");
        shop.runs() > 1
    })
    .await;
}

fn keeping<DB: ShopDb>(shop: &Shop<DB>, retention: Duration) -> Ledger<DB> {
    Ledger::builder(shop.db.pool().clone())
        .retention(retention)
        .build()
        .expect("a ledger")
}

async fn a_retention_ends_by_itself<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let ledger = keeping(&shop, Duration::from_millis(50));
    executes_again_soon(&shop, &ledger, None).await;
}

async fn the_retention_of_the_call_goes_before_that_of_the_ledger<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let ledger = keeping(&shop, Duration::from_secs(3600));
    executes_again_soon(&shop, &ledger, Some(Duration::from_millis(50))).await;
}

async fn an_expired_key_executes_once_more_for_twenty_callers<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    // Remembered here and in the database, not remembered elsewhere.
    shop.order("a").await.expect("the first answer");
    shop.expire().await;
    let ledgers = [shop.ledger.clone(), shop.elsewhere()];
    let mut calls = JoinSet::new();
    for n in 0..20 {
        let (ledger, runs) = (ledgers[n % 2].clone(), shop.runs.clone());
        let work = Duration::from_millis(20);
        calls.spawn(async move { order_on(&ledger, &runs, "a", work).await });
    }
    let answers: Vec<_> = calls.join_all().await;
    let answers = answers.into_iter().map(|answer| answer.expect("an answer"));
    let answers: Vec<_> = answers.collect();
    assert_eq!(shop.runs(), 2, "once more");
    assert_eq!(
        answers.iter().filter(|answer| !answer.is_replay()).count(),
        1
    );
    assert!(
        answers
            .iter()
            .all(|answer| answer.recorded().body() == b"\"run 1\"")
    );
    assert_eq!(shop.stored().await, (2, 2, 1));
    let ids = shop.drain().await.into_iter();
    let attempts: BTreeSet<_> = ids
        .map(|event| event.id.into_bytes()[..14].to_vec())
        .collect();
    assert_eq!(attempts.len(), 2, "the new event has a new id");
    shop.assert_healthy().await;
}

async fn an_expired_key_whose_new_call_fails_stays_free<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.order("a").await.expect("the first answer");
    shop.expire().await;
    let call = shop.ledger.call(shop_key("a"));
    let failed = place(call, &shop.runs, "a", async { Err(ShopError::GaveUp) }).await;
    assert!(failed.is_err());
    // The takeover is rolled back with the call: the expired row is there, and takes nobody's turn.
    assert_eq!(shop.stored().await, (1, 1, 1));
    shop.assert_free("a").await;
    assert_eq!(shop.stored().await, (2, 2, 1));
}

async fn who_may_not_wait_is_refused_at_once_while_an_expired_key_is_taken_over<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    shop.order("a").await.expect("the first answer");
    shop.expire().await;
    let held = Held::by(&shop.elsewhere(), &shop.runs, "a", "").await;
    for wait in [Duration::ZERO, Duration::from_millis(300)] {
        let call = shop.ledger.call(shop_key("a")).wait(wait);
        let duplicate = place(call, &shop.runs, "a", async { Ok(()) });
        let refused = tokio::time::timeout(Duration::from_secs(5), duplicate).await;
        assert_eq!(kind(&refused.expect("a bound")), Some(ErrorKind::InFlight));
    }
    held.finish().await.expect("the new answer");
    assert!(shop.order("a").await.expect("a replay").is_replay());
    assert_eq!(shop.stored().await, (2, 2, 1));
    shop.assert_healthy().await;
}

async fn a_takeover_in_flight_elsewhere_is_waited_for_and_replayed<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.order("a").await.expect("the first answer");
    shop.expire().await;
    let held = Held::by(&shop.elsewhere(), &shop.runs, "a", "").await;
    let call = shop.ledger.call(shop_key("a")).wait(SOON);
    let (new, duplicate) = tokio::join!(
        async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            held.finish().await.expect("the new answer")
        },
        place(call, &shop.runs, "a", async { Ok(()) }),
    );
    let duplicate = duplicate.expect("a replay");
    assert!(duplicate.is_replay());
    assert_eq!(duplicate.recorded(), new.recorded());
    assert_eq!(shop.stored().await, (2, 2, 1));
    shop.assert_healthy().await;
}
