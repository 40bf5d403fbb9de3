//! Answers of the database that do not arrive: what was asked has happened, and the relay does not know.

use std::time::Duration;

use effectively::Route;
use effectively::fault::{Action, RELAY_POINTS, arm, fired};
use effectively::sink::{Delivery, Memory};
use effectively_tests::{TestDb, Worker, eventually, on_every_database};

use crate::shop::{Numbered, Running, SOON, Shop, ShopDb, brisk, in_order};

on_every_database!(after_each_lost_answer_all_is_published_in_order);

async fn after_each_lost_answer_all_is_published_in_order<DB: ShopDb>(db: TestDb<DB>) {
    if Worker::input::<()>().is_some() {
        return count_through(&Shop::opened(db)).await;
    }
    let shop = Shop::open(db).await;
    // Points belong to a process: in this one, the other tests pass them too.
    let mut worker = shop.db.worker(&());
    for point in RELAY_POINTS {
        worker.expect(point).await;
    }
    assert!(worker.exit().await.success());
}

async fn count_through<DB: ShopDb>(shop: &Shop<DB>) {
    for (round, point) in RELAY_POINTS.iter().enumerate() {
        arm(Some((point, Action::Error)));
        everything_happens(shop).await;
        assert_eq!(fired(), round as u64 + 1, "{point} never fired");
        Worker::say(point);
    }
}

async fn dead_letters<DB: ShopDb>(shop: &Shop<DB>) -> u64 {
    let backlog = shop.ledger.outbox().backlog().await;
    backlog.expect("the backlog").dead_letters
}

/// An event is rejected once and another for good, a second relay comes and dies, and the first goes on alone.
async fn everything_happens<DB: ShopDb>(shop: &Shop<DB>) {
    let keys: Vec<String> = (0..200).map(|key| format!("key {key}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let sink = Memory::new().judged_by(|event| {
        let numbered = Numbered::from(event);
        match (numbered.key.as_str(), numbered.number) {
            ("key 7", 3) if event.attempts == 0 => Some(Delivery::rejected("not now")),
            ("key 8", 3) => Some(Delivery::refused_for_good("never")),
            _ => None,
        }
    });
    let relay = || {
        let pauses = Duration::from_millis(50);
        let route = Route::to(sink.clone()).backoff(pauses, pauses);
        Running::start(brisk(shop.elsewhere()).route("numbers", route))
    };
    let dead = dead_letters(shop).await;
    let stays = relay();
    shop.numbers(&keys, 0..6).await;
    shop.drained().await;
    eventually(SOON, async || shop.holders().await == [64]).await;
    let dies = relay();
    eventually(SOON, async || shop.holders().await == [32, 32]).await;
    drop(dies);
    shop.numbers(&keys, 6..8).await;
    shop.drained().await;
    stays.stop().await;
    assert_eq!(dead_letters(shop).await, dead + 1);
    let of_key = in_order(&sink.published());
    for key in keys {
        let all = (0..8).filter(|number| (key, *number) != ("key 8", 3));
        assert_eq!(of_key[key], all.collect::<Vec<_>>(), "{key}");
    }
}
