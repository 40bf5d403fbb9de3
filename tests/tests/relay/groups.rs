//! Relays with different routes on one outbox: apart, one after the other, or refused.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use effectively::sink::Memory;
use effectively::{Emit, Error, ErrorKind, Event, LeaseState, RelayBuilder};
use effectively_tests::{TestDb, eventually, on_every_database};
use serde::Serialize;
use tokio::time::timeout;

use crate::shop::{Mail, Numbered, Running, SOON, Shop, ShopDb, brisk, in_order};

on_every_database!(
    relays_for_different_topics_share_one_outbox,
    a_relay_that_gives_partitions_up_frees_none_of_another_group,
    a_relay_with_other_routes_for_a_topic_is_refused,
    a_relay_with_one_more_route_goes_on_where_the_one_before_it_ended,
    relays_that_start_at_once_with_different_routes_publish_one_group_after_the_other,
    a_relay_waits_for_one_of_an_earlier_version,
    topics_of_one_route_keep_their_order_among_events_for_others,
);

const KEYS: u64 = 60;

/// Numbers and mails of the same keys, so that they are in the same partitions.
async fn both<DB: ShopDb>(shop: &Shop<DB>, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let of = |key| Numbered::of(&format!("key {key}"), number);
        let emission = Emit::new(())
            .events((0..KEYS).map(of))
            .events((0..KEYS).map(|key| Mail(of(key))));
        shop.emit(emission).await;
    }
}

/// How many events have arrived, however often each: on a machine that is busy a short lease may be lost.
fn arrived(sink: &Memory) -> u64 {
    let ids: HashSet<_> = sink.published().iter().map(|event| event.id).collect();
    ids.len() as u64
}

/// Every event of each key has arrived, in order.
fn assert_all_in_order(sink: &Memory, numbers: u64) {
    let of_key = in_order(&sink.published());
    assert_eq!(of_key.len() as u64, KEYS);
    for (key, arrived) in of_key {
        assert_eq!(arrived, (0..numbers).collect::<Vec<_>>(), "{key}");
    }
}

async fn relays_for_different_topics_share_one_outbox<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let (numbers, mails) = (Memory::new(), Memory::new());
    let numbers_relay = || brisk(shop.elsewhere()).route("numbers", numbers.clone());
    let mails_relay = || brisk(shop.elsewhere()).route("mail.*", mails.clone());
    let running = [
        Running::start(numbers_relay()),
        Running::start(mails_relay()),
    ];
    both(&shop, 0..4).await;
    shop.drained().await;
    eventually(SOON, async || shop.holders().await == [64, 64]).await;
    // Each group shares its work among its own.
    let more = [
        Running::start(numbers_relay()),
        Running::start(mails_relay()),
    ];
    eventually(SOON, async || shop.holders().await == [32; 4]).await;
    both(&shop, 4..6).await;
    shop.drained().await;
    // And none does that of the other.
    for relay in running {
        relay.stop().await;
    }
    let [numbers_left, mails_left] = more;
    mails_left.stop().await;
    both(&shop, 6..8).await;
    eventually(SOON, async || arrived(&numbers) == KEYS * 8).await;
    eventually(SOON, async || shop.pending().await == KEYS * 2).await;
    assert_eq!(
        arrived(&mails),
        KEYS * 6,
        "mails wait for a relay of their own"
    );
    numbers_left.stop().await;
    let last = Running::start(mails_relay());
    shop.drained().await;
    last.stop().await;
    assert_all_in_order(&numbers, 8);
    assert_all_in_order(&mails, 8);
}

async fn a_relay_that_gives_partitions_up_frees_none_of_another_group<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let numbers = || brisk(shop.elsewhere()).route("numbers", Memory::new());
    let mails = brisk(shop.elsewhere()).route("mail.*", Memory::new());
    let _mails = Running::start(mails.lease(Duration::from_secs(30)));
    let _first = Running::start(numbers());
    eventually(SOON, async || shop.holders().await == [64, 64]).await;
    let of_mails = async || {
        let mut leases = shop.ledger.outbox().leases().await.expect("the leases");
        leases.retain(|lease| {
            lease
                .routes
                .as_deref()
                .is_some_and(|routes| routes.contains("mail"))
        });
        let of = |lease: &LeaseState| (lease.partition, lease.holder, lease.epoch);
        leases.iter().map(of).collect::<Vec<_>>()
    };
    let before = of_mails().await;
    assert_eq!(before.len(), 64);
    // The first one gives half of its partitions up.
    let _second = Running::start(numbers());
    eventually(SOON, async || {
        let mut held = shop.holders().await;
        held.sort_unstable();
        held == [32, 32, 64]
    })
    .await;
    assert_eq!(of_mails().await, before);
}

async fn a_relay_with_other_routes_for_a_topic_is_refused<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let (first, second) = (Memory::new(), Memory::new());
    // Its lease is long, so that it stays alive on a machine that is busy.
    let running = Running::start(
        brisk(shop.elsewhere())
            .lease(Duration::from_secs(20))
            .route("numbers", first.clone())
            .route("mail.welcome", first.clone()),
    );
    eventually(SOON, async || shop.holders().await == [64]).await;
    both(&shop, 0..1).await;
    for routes in [&["*"][..], &["mail.*"], &["orders", "n*"]] {
        let relay = brisk(shop.elsewhere());
        let relay = routes
            .iter()
            .fold(relay, |relay, topics| relay.route(*topics, second.clone()));
        let refused = run(relay).await.expect_err("refused");
        let message = refused.to_string();
        assert!(
            matches!(refused.kind(), ErrorKind::RoutesOverlap { .. }),
            "{message}"
        );
        assert!(
            message.contains("numbers") && message.contains(routes[0]),
            "{message}"
        );
    }
    shop.drained().await;
    running.stop().await;
    assert_eq!((arrived(&first), second.len()), (KEYS * 2, 0));
    // Nobody is left that it overlaps with.
    let alone = Running::start(brisk(shop.elsewhere()).route("*", second.clone()));
    both(&shop, 1..2).await;
    shop.drained().await;
    alone.stop().await;
}

/// Until it ends by itself.
async fn run<DB: ShopDb>(relay: RelayBuilder<DB>) -> Result<(), Error> {
    let relay = relay.build().expect("a relay");
    let ended = timeout(SOON, relay.run(std::future::pending())).await;
    ended.expect("an end")
}

/// A relay that keeps its leases on a machine that is busy.
fn steady<DB: ShopDb>(shop: &Shop<DB>) -> RelayBuilder<DB> {
    brisk(shop.elsewhere()).lease(Duration::from_secs(4))
}

async fn a_relay_with_one_more_route_goes_on_where_the_one_before_it_ended<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    let (numbers, mails) = (Memory::new(), Memory::new());
    let before = || Running::start(steady(&shop).route("numbers", numbers.clone()));
    let after = || {
        let relay = steady(&shop).route("numbers", numbers.clone());
        Running::start(relay.route("mail.*", mails.clone()))
    };
    let old = [before(), before()];
    eventually(SOON, async || shop.holders().await == [32, 32]).await;
    // A rolling deploy: one old relay ends, the others run for a while beside the new ones.
    let mut new = vec![after()];
    both(&shop, 0..2).await;
    eventually(SOON, async || arrived(&numbers) == KEYS * 2).await;
    let [one, other] = old;
    one.stop().await;
    new.push(after());
    both(&shop, 2..4).await;
    eventually(SOON, async || arrived(&numbers) == KEYS * 4).await;
    assert!(mails.is_empty(), "the old relay holds the partitions");
    other.stop().await;
    shop.drained().await;
    eventually(SOON, async || shop.holders().await == [32, 32]).await;
    // And back again, as if the new ones had crashed.
    let old = before();
    both(&shop, 4..6).await;
    shop.drained().await;
    drop(new);
    both(&shop, 6..8).await;
    eventually(SOON, async || arrived(&numbers) == KEYS * 8).await;
    old.stop().await;
    let new = after();
    shop.drained().await;
    new.stop().await;
    assert_all_in_order(&numbers, 8);
    assert_all_in_order(&mails, 8);
}

async fn relays_that_start_at_once_with_different_routes_publish_one_group_after_the_other<
    DB: ShopDb,
>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    let assert_one_group = async || {
        let leases = shop.ledger.outbox().leases().await.expect("the leases");
        let held = leases.into_iter().filter(|lease| lease.holder.is_some());
        let groups: HashSet<_> = held.filter_map(|lease| lease.routes).collect();
        assert!(groups.len() <= 1, "at once: {groups:?}");
    };
    let (numbers, mails) = (Memory::new(), Memory::new());
    let relay = |wide: bool| {
        let relay = brisk(shop.elsewhere()).route("numbers", numbers.clone());
        Running::start(if wide {
            relay.route("mail.*", mails.clone())
        } else {
            relay
        })
    };
    for round in 0..3 {
        both(&shop, round..round + 1).await;
        let relays: Vec<_> = (0..6).map(|place| relay(place % 2 == 0)).collect();
        eventually(SOON, async || {
            assert_one_group().await;
            arrived(&numbers) == KEYS * (round + 1) && !shop.holders().await.is_empty()
        })
        .await;
        for relay in relays {
            relay.stop().await;
            assert_one_group().await;
        }
    }
    let last = relay(true);
    shop.drained().await;
    last.stop().await;
    assert_all_in_order(&numbers, 3);
    assert_all_in_order(&mails, 3);
}

/// An event of another topic than `Mail`, on the same route.
#[derive(Debug, Serialize)]
struct Letter(Numbered);

impl Event for Letter {
    const TOPIC: &'static str = "mail.letter";
    const NAME: &'static str = "letter.v1";

    fn partition_key(&self) -> Option<Cow<'_, str>> {
        self.0.partition_key()
    }
}

async fn topics_of_one_route_keep_their_order_among_events_for_others<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let sink = Memory::new();
    for round in 0..20_u64 {
        for key in 0..KEYS {
            // More of one topic than of the other, and numbers that nobody is there for.
            let event = |number| Numbered::of(&format!("key {key}"), round * 4 + number);
            let emission = Emit::new(())
                .events((0..3).map(|number| Mail(event(number))))
                .event(Letter(event(3)))
                .events((0..3).map(event));
            shop.emit(emission).await;
        }
    }
    let relay = brisk(shop.elsewhere()).route("mail.*", sink.clone());
    let relay = Running::start(relay.batch(100));
    eventually(SOON, async || shop.pending().await == KEYS * 60).await;
    relay.stop().await;
    assert_all_in_order(&sink, 80);
}

async fn a_relay_waits_for_one_of_an_earlier_version<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let sink = Memory::new();
    let relay = shop.relay(&sink);
    eventually(SOON, async || shop.holders().await == [64]).await;
    // It tells of no routes, and takes any lease that is free.
    let id = match DB::NAME {
        "PostgreSQL" => "gen_random_uuid()",
        _ => "'0123456789abcdef'",
    };
    let earlier = format!(
        "insert into effectively_relays (id, expires_at) select {id}, max(expires_at) from effectively_relays"
    );
    shop.db.execute(&earlier).await;
    let extend = "update effectively_relays set expires_at = (select e from (select max(expires_at) as e from effectively_relays) as l) \
                  where group_no is null";
    eventually(SOON, async || {
        shop.db.execute(extend).await;
        shop.holders().await.is_empty()
    })
    .await;
    shop.numbers(&["ada"], 0..1).await;
    // It says no more that it is alive.
    shop.drained().await;
    relay.stop().await;
}
