//! Several relays: they share the partitions, and none settles what is not its own.

use std::sync::Arc;
use std::time::Duration;

use effectively::sink::{Delivery, Memory, Sink};
use effectively::{Envelope, RelayBuilder};
use effectively_tests::{TestDb, eventually, on_every_database};
use tokio::sync::Semaphore;

use crate::shop::{Running, SOON, Shop, ShopDb, brisk, in_order};

on_every_database!(
    relays_share_the_partitions_and_give_them_up_to_newcomers,
    events_keep_their_order_while_relays_come_and_go,
    a_relay_that_is_gone_is_replaced_when_its_leases_end,
    a_relay_whose_lease_ended_settles_nothing,
);
on_every_database!([postgres] an_event_is_settled_by_who_holds_its_lease_and_by_nobody_else);

async fn relays_share_the_partitions_and_give_them_up_to_newcomers<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let sink = Memory::new();
    let relay = || Running::start(brisk(shop.elsewhere()).route("numbers", sink.clone()));
    let first = relay();
    eventually(SOON, async || shop.holders().await == [64]).await;
    let second = relay();
    eventually(SOON, async || shop.holders().await == [32, 32]).await;
    let third = relay();
    eventually(SOON, async || {
        let held = shop.holders().await;
        held.len() == 3 && held.iter().sum::<usize>() == 64 && held.iter().all(|held| *held >= 20)
    })
    .await;
    first.stop().await;
    eventually(SOON, async || shop.holders().await == [32, 32]).await;
    second.stop().await;
    third.stop().await;
    assert!(shop.holders().await.is_empty());
}

async fn events_keep_their_order_while_relays_come_and_go<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let keys: Vec<String> = (0..40).map(|key| format!("key {key}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let sink = Memory::new();
    let relay = || {
        Running::start(
            brisk(shop.elsewhere())
                .route("numbers", sink.clone())
                .batch(32),
        )
    };
    let mut relays = vec![relay()];
    for round in 0..12 {
        shop.numbers(&keys, round * 5..(round + 1) * 5).await;
        match round % 3 {
            0 => relays.push(relay()),
            1 => relays.swap_remove(0).stop().await,
            // As if it had crashed.
            _ => drop(std::mem::replace(&mut relays[0], relay())),
        }
    }
    shop.drained().await;
    let of_key = in_order(&sink.published());
    for key in keys {
        assert_eq!(of_key[key], (0..60).collect::<Vec<_>>());
    }
}

async fn a_relay_that_is_gone_is_replaced_when_its_leases_end<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let sink = Memory::new();
    let gone = shop.relay(&sink);
    eventually(SOON, async || shop.holders().await == [64]).await;
    drop(gone);
    shop.numbers(&["ada", "bob", "cy"], 0..100).await;
    let begun = std::time::Instant::now();
    let _next = Running::start(brisk(shop.elsewhere()).route("numbers", sink.clone()));
    shop.drained().await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(in_order(&sink.published()).len(), 3);
}

/// Holds every batch until it is let go.
#[derive(Clone)]
struct Stalling {
    go_on: Arc<Semaphore>,
    reached: Arc<Semaphore>,
    sink: Memory,
}

impl Sink for Stalling {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        self.reached.add_permits(1);
        // Without the runtime's knowledge, as a process that is stopped: no timer ends this.
        while self.go_on.available_permits() == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.sink.publish(batch).await
    }
}

/// Publishes three events by a relay that has lost its leases when it comes to settling them.
pub async fn publish_without_leases<DB: ShopDb>(shop: &Shop<DB>, relay: RelayBuilder<DB>) {
    shop.numbers(&["ada"], 0..3).await;
    let stalling = Stalling {
        go_on: Arc::new(Semaphore::new(0)),
        reached: Arc::new(Semaphore::new(0)),
        sink: Memory::new(),
    };
    let stale = Running::start(relay.route("numbers", stalling.clone()));
    _ = stalling
        .reached
        .acquire()
        .await
        .expect("a batch on its way");
    // Its leases end while it is at it: somebody else has them now.
    shop.db
        .execute("update effectively_leases set epoch = epoch + 1")
        .await;
    stalling.go_on.add_permits(1);
    eventually(SOON, async || stalling.sink.len() >= 3).await;
    stale.stop().await;
}

async fn a_relay_whose_lease_ended_settles_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    publish_without_leases(&shop, brisk(shop.elsewhere())).await;
    assert_eq!(
        shop.pending().await,
        3,
        "nothing was settled by the stale relay"
    );
}

/// What the server decides by itself in one statement; elsewhere the relay's statements say it.
async fn an_event_is_settled_by_who_holds_its_lease_and_by_nobody_else<DB: ShopDb>(db: TestDb<DB>) {
    const HELD: &str = "holder = '00112233-4455-6677-8899-aabbccddeeff', epoch = 7, expires_at = now() + interval '1 minute'";
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..2).await;
    for (function, more) in [("settle", ""), ("settle_and_keep", ", 1000")] {
        let settle = format!(
            "select effectively_{function}('00112233-4455-6677-8899-aabbccddeeff', \
             array[partition_no], array[7], array[id]{more}) from effectively_outbox limit 1"
        );
        for (lease, settled) in [
            ("holder = gen_random_uuid()", 0),
            ("epoch = 8", 0),
            ("expires_at = now()", 0),
            ("holder = holder", 1),
        ] {
            for change in [HELD, lease] {
                let change = format!("update effectively_leases set {change}");
                shop.db.execute(&change).await;
            }
            assert_eq!(
                shop.db.number(&settle).await,
                settled,
                "{function}: {lease}"
            );
        }
    }
    assert_eq!(shop.pending().await, 0);
}
