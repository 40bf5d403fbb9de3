//! `wait = "…"`: how long a duplicate waits for the first call before it is told that it is in flight.

use std::time::{Duration, Instant};

use effectively::{ErrorKind, Ledger, idempotent};
use effectively_tests::{TestDb, on_every_database};

use crate::shop::{Orders, Shop, ShopDb, ShopError, Stop, first, kind, replay, send};

#[idempotent(key = "{item}", scope = "wait", wait = "0s")]
async fn at_once<C: Orders>(tx: &mut C, item: String, stop: Stop) -> Result<usize, ShopError> {
    tx.insert(&item).await?;
    stop.here().await;
    Ok(stop.runs())
}

#[idempotent(key = "{item}", wait = "300ms")]
async fn a_little<C: Orders>(tx: &mut C, item: String, stop: Stop) -> Result<usize, ShopError> {
    tx.insert(&item).await?;
    stop.here().await;
    Ok(stop.runs())
}

#[idempotent(key = "{item}", wait = "20s")]
async fn long<C: Orders>(tx: &mut C, item: String, stop: Stop) -> Result<usize, ShopError> {
    tx.insert(&item).await?;
    stop.here().await;
    Ok(stop.runs())
}

on_every_database!(
    a_duplicate_that_may_not_wait_is_refused_at_once,
    a_duplicate_waits_as_long_as_it_may,
    a_duplicate_that_waits_long_enough_gets_the_first_answer,
    the_wait_of_the_handler_goes_before_that_of_the_ledger,
);

/// Where a duplicate can meet the first call. SQLite has one writer: elsewhere it waits for the lock, whatever it asks for.
fn places<DB: ShopDb>(shop: &Shop<DB>) -> Vec<Ledger<DB>> {
    let mut places = vec![shop.ledger()];
    if DB::NAME != "SQLite" {
        places.push(shop.elsewhere());
    }
    places
}

async fn a_duplicate_that_may_not_wait_is_refused_at_once<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, stop) = (Shop::open(db).await, Stop::closed());
    let call = |ledger| send(at_once::<DB::Connection>(ledger, "a".into(), stop.clone()));
    let running = tokio::spawn(call(shop.ledger()));
    stop.entered().await;
    for ledger in places(&shop) {
        let began = Instant::now();
        let refused = call(ledger).await;
        assert_eq!(kind(&refused), Some(ErrorKind::InFlight));
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    stop.let_go();
    first(running.await.expect("no panic"));
    for ledger in places(&shop) {
        replay(call(ledger).await);
    }
    assert_eq!((stop.runs(), shop.orders().await), (1, 1));
}

async fn a_duplicate_waits_as_long_as_it_may<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, stop) = (Shop::open(db).await, Stop::closed());
    let call = |ledger| send(a_little::<DB::Connection>(ledger, "a".into(), stop.clone()));
    let running = tokio::spawn(call(shop.ledger()));
    stop.entered().await;
    for ledger in places(&shop) {
        let began = Instant::now();
        let refused = call(ledger).await;
        let took = began.elapsed();
        assert_eq!(kind(&refused), Some(ErrorKind::InFlight));
        // MySQL counts whole seconds, rounded up.
        assert!(
            took >= Duration::from_millis(300) && took < Duration::from_secs(4),
            "{took:?}"
        );
    }
    stop.let_go();
    first(running.await.expect("no panic"));
    assert_eq!((stop.runs(), shop.orders().await), (1, 1));
}

async fn a_duplicate_that_waits_long_enough_gets_the_first_answer<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, stop) = (Shop::open(db).await, Stop::closed());
    let call = |ledger| send(long::<DB::Connection>(ledger, "a".into(), stop.clone()));
    let running = tokio::spawn(call(shop.ledger()));
    stop.entered().await;
    let waiting: Vec<_> = places(&shop)
        .into_iter()
        .map(|ledger| tokio::spawn(call(ledger)))
        .collect();
    tokio::task::yield_now().await;
    stop.let_go();
    let answer = first(running.await.expect("no panic"));
    for duplicate in waiting {
        let duplicate = replay(duplicate.await.expect("no panic"));
        assert_eq!(duplicate.recorded(), answer.recorded());
    }
    assert_eq!((stop.runs(), shop.orders().await), (1, 1));
}

async fn the_wait_of_the_handler_goes_before_that_of_the_ledger<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, stop) = (Shop::open(db).await, Stop::closed());
    let minute = Ledger::builder(shop.db.pool().clone()).wait(Duration::from_secs(60));
    let ledger = minute.build().expect("a ledger");
    let call = || {
        send(at_once::<DB::Connection>(
            ledger.clone(),
            "a".into(),
            stop.clone(),
        ))
    };
    let running = tokio::spawn(call());
    stop.entered().await;
    let refused = tokio::time::timeout(Duration::from_secs(10), call()).await;
    assert_eq!(kind(&refused.expect("a bound")), Some(ErrorKind::InFlight));
    stop.let_go();
    first(running.await.expect("no panic"));
}
