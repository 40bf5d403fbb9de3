//! A duplicate waits for the first call to finish, no longer than it may, and then replays or is told that it is in flight.

use std::time::{Duration, Instant};

use effectively::{ErrorKind, Failure, Ledger, Outcome};
use effectively_tests::{TestDb, on_every_database};
use sqlx::pool::PoolOptions;
use tokio::task::JoinSet;

use crate::held::Held;
use crate::shop::{Shop, ShopDb, ShopError, kind, place, shop_key};

const LONG: Duration = Duration::from_secs(30);

async fn order<DB: ShopDb>(
    shop: &Shop<DB>,
    ledger: &Ledger<DB>,
    wait: Duration,
) -> Result<Outcome<String>, Failure<ShopError>> {
    let call = ledger.call(shop_key("a")).wait(wait);
    place(call, &shop.runs, "a", async { Ok(()) }).await
}

/// Lets the holder go once the duplicate has surely met it.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

on_every_database!(
    a_duplicate_waits_for_the_first_and_replays_it,
    a_duplicate_executes_when_the_first_gives_up,
    a_duplicate_here_that_may_not_wait_is_refused_at_once,
    a_duplicate_waits_no_longer_than_it_may,
    calls_that_may_not_wait_get_every_free_key,
);
on_every_database!([postgres, mysql] a_duplicate_elsewhere_that_may_not_wait_is_refused_at_once);
on_every_database!([sqlite] a_duplicate_elsewhere_waits_for_the_one_writer_as_long_as_the_busy_timeout);

async fn a_duplicate_waits_for_the_first_and_replays_it<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let held = Held::by(&shop.ledger, &shop.runs, "a", "").await;
    let elsewhere = shop.elsewhere();
    let (first, here, there) = tokio::join!(
        async {
            a_moment().await;
            held.finish().await.expect("the first answer")
        },
        order(&shop, &shop.ledger, LONG),
        order(&shop, &elsewhere, LONG),
    );
    for duplicate in [here, there] {
        let duplicate = duplicate.expect("a replay");
        assert!(duplicate.is_replay());
        assert_eq!(duplicate.recorded(), first.recorded());
    }
    assert_eq!(shop.runs(), 1);
    assert_eq!(shop.stored().await, (1, 1, 1));
    shop.assert_healthy().await;
}

async fn a_duplicate_executes_when_the_first_gives_up<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let elsewhere = shop.elsewhere();
    let held = Held::by(&shop.ledger, &shop.runs, "a", "").await;
    let ((), here, there) = tokio::join!(
        async {
            a_moment().await;
            held.give_up().await;
        },
        order(&shop, &shop.ledger, LONG),
        order(&shop, &elsewhere, LONG),
    );
    let (here, there) = (here.expect("an answer"), there.expect("an answer"));
    assert_eq!(here.recorded(), there.recorded());
    assert_ne!(here.is_replay(), there.is_replay(), "one of them executed");
    assert_eq!(shop.runs(), 2);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn a_duplicate_here_that_may_not_wait_is_refused_at_once<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let held = Held::by(&shop.ledger, &shop.runs, "a", "").await;
    let refused = order(&shop, &shop.ledger, Duration::ZERO).await;
    assert_eq!(kind(&refused), Some(ErrorKind::InFlight));
    held.finish().await.expect("the first answer");
    let replay = order(&shop, &shop.ledger, Duration::ZERO).await;
    assert!(replay.expect("a replay").is_replay());
}

async fn a_duplicate_elsewhere_that_may_not_wait_is_refused_at_once<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let elsewhere = shop.elsewhere();
    let held = Held::by(&elsewhere, &shop.runs, "a", "").await;
    let refused = order(&shop, &shop.ledger, Duration::ZERO).await;
    assert_eq!(kind(&refused), Some(ErrorKind::InFlight));
    held.finish().await.expect("the first answer");
    let replay = order(&shop, &shop.ledger, Duration::ZERO).await;
    assert!(replay.expect("a replay").is_replay());
    shop.assert_healthy().await;
}

async fn a_duplicate_elsewhere_waits_for_the_one_writer_as_long_as_the_busy_timeout<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    let held = Held::by(&shop.elsewhere(), &shop.runs, "a", "").await;
    let impatient = PoolOptions::new().after_connect(|connection, _| {
        Box::pin(async {
            DB::execute(connection, "pragma busy_timeout = 100").await?;
            Ok(())
        })
    });
    let ledger = Ledger::new(shop.db.pool_from(impatient, None));
    let refused = order(&shop, &ledger, Duration::ZERO).await;
    assert_eq!(kind(&refused), Some(ErrorKind::Unavailable));
    held.finish().await.expect("the first answer");
    assert_eq!(shop.stored().await, (1, 1, 1));
}

/// Here to the millisecond; elsewhere MySQL counts whole seconds.
async fn a_duplicate_waits_no_longer_than_it_may<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let wait = Duration::from_millis(300);
    let (key, elsewhere) = ("a", shop.elsewhere());
    let held = Held::by(&shop.ledger, &shop.runs, key, "").await;
    let ledgers = [
        Some(&shop.ledger),
        Some(&elsewhere).filter(|_| DB::NAME != "SQLite"),
    ];
    for ledger in ledgers.into_iter().flatten() {
        let began = Instant::now();
        let refused = order(&shop, ledger, wait).await;
        assert_eq!(kind(&refused), Some(ErrorKind::InFlight));
        let took = began.elapsed();
        assert!(took >= wait && took < Duration::from_secs(3), "{took:?}");
    }
    held.finish().await.expect("the first answer");
    shop.assert_healthy().await;
}

async fn calls_that_may_not_wait_get_every_free_key<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let mut calls = JoinSet::new();
    for n in 0..50 {
        let (ledger, runs) = (shop.ledger.clone(), shop.runs.clone());
        calls.spawn(async move {
            let key = format!("free {n}");
            let call = ledger.call(shop_key(&key)).wait(Duration::ZERO);
            place(call, &runs, &key, async { Ok(()) }).await
        });
    }
    for answer in calls.join_all().await {
        assert!(!answer.expect("an answer").is_replay());
    }
    assert_eq!(shop.stored().await, (50, 50, 50));
}
