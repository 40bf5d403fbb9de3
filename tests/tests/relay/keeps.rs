//! Published events are kept where a relay is told to, all of them and whole, and for no longer than that.

use std::time::Duration;

use effectively::fault::{self, Action};
use effectively::sink::Memory;
use effectively::{Emit, ErrorKind, Ledger, Relay};
use effectively_tests::{TestDb, Worker, on_every_database};

use crate::shares::publish_without_leases;
use crate::shop::{Numbered, Running, Shop, ShopDb, brisk};

on_every_database!(
    published_events_are_kept_whole_until_their_time_is_over,
    nothing_is_kept_unless_the_relay_is_told_to,
    a_relay_whose_lease_ended_keeps_nothing,
    an_event_that_is_published_again_is_kept_once,
    a_place_that_is_given_out_again_stops_no_relay,
    many_are_purged_in_batches_and_younger_ones_stay,
    tables_of_another_name_keep_too,
);
on_every_database!([mysql, sqlite] a_relay_that_dies_between_keeping_and_removing_has_done_neither);
on_every_database!([postgres] a_schema_of_its_own_keeps_too);
on_every_database!([sqlite] a_time_out_of_bounds_is_refused);

const HOUR: Duration = Duration::from_secs(3600);
const KEPT: &str = "select count(*) from effectively_published";
const WHOLE: &str = "id, event_id, topic, type, partition_key, partition_no, data, headers, traceparent, created_at";

/// Publishes all there is, by a relay that keeps it.
async fn publish<DB: ShopDb>(shop: &Shop<DB>) -> Memory {
    let sink = Memory::new();
    let relay = brisk(shop.ledger.clone()).route("numbers", sink.clone());
    let relay = Running::start(relay.keep_published(HOUR));
    shop.drained().await;
    relay.stop().await;
    sink
}

/// As if the hour were over.
async fn expire<DB: ShopDb>(shop: &Shop<DB>, which: &str) {
    let past = match DB::NAME {
        "PostgreSQL" => "now() - interval '1 second'",
        "MySQL" => "utc_timestamp(6) - interval 1 second",
        _ => "0",
    };
    let sql = format!("update effectively_published set expires_at = {past} where {which}");
    shop.db.execute(&sql).await;
}

async fn purge<DB: ShopDb>(shop: &Shop<DB>) -> u64 {
    let purged = shop.ledger.outbox().purge_published().await;
    purged.expect("a purge")
}

async fn published_events_are_kept_whole_until_their_time_is_over<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada", "bob", "cy"], 0..20).await;
    let emission = Emit::new(()).event(Numbered::of("dan", 1));
    shop.emit(emission.header("tenant", "blue")).await;
    let before = format!("create table before_it as select {WHOLE} from effectively_outbox");
    shop.db.execute(&before).await;
    assert_eq!(publish(&shop).await.len(), 61);
    let or_null =
        |column: &str| format!("coalesce(p.{column}, 'none') = coalesce(b.{column}, 'none')");
    let same = format!(
        "select count(*) from effectively_published as p join before_it as b on p.id = b.id and p.event_id = b.event_id \
         and p.topic = b.topic and p.type = b.type and p.partition_no = b.partition_no and p.data = b.data \
         and p.created_at = b.created_at and p.published_at >= p.created_at and p.expires_at > p.published_at \
         and {} and {} and {}",
        or_null("partition_key"),
        or_null("headers"),
        or_null("traceparent"),
    );
    assert_eq!(shop.db.number(&same).await, 61);
    assert_eq!(purge(&shop).await, 0, "the hour is not over");
    let leftovers = async || shop.ledger.leftovers().await.expect("an answer");
    assert_eq!(leftovers().await.expired_events, 0);
    expire(&shop, "1 = 1").await;
    assert_eq!(leftovers().await.expired_events, 61);
    assert_eq!(purge(&shop).await, 61);
    assert_eq!(shop.db.number(KEPT).await, 0);
}

async fn nothing_is_kept_unless_the_relay_is_told_to<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..20).await;
    let sink = Memory::new();
    let relay = shop.relay(&sink);
    shop.drained().await;
    relay.stop().await;
    assert_eq!(sink.len(), 20);
    assert_eq!(shop.db.number(KEPT).await, 0);
}

async fn a_relay_whose_lease_ended_keeps_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let stale = brisk(shop.elsewhere()).keep_published(HOUR);
    publish_without_leases(&shop, stale).await;
    assert_eq!(shop.pending().await, 3);
    assert_eq!(shop.db.number(KEPT).await, 0);
}

async fn a_relay_that_dies_between_keeping_and_removing_has_done_neither<DB: ShopDb>(
    db: TestDb<DB>,
) {
    if Worker::input::<()>().is_some() {
        fault::arm(Some((fault::AFTER_KEEP, Action::Kill)));
        let relay = brisk(Shop::opened(db).ledger).route("numbers", Memory::new());
        let relay = relay.keep_published(HOUR).build().expect("a relay");
        let _ = relay.run(std::future::pending()).await;
        return;
    }
    let shop = Shop::open(db).await;
    shop.numbers(&["ada", "bob"], 0..10).await;
    let ended = shop.db.worker(&()).exit().await;
    assert!(!ended.success(), "it did not die");
    assert_eq!(shop.pending().await, 20);
    assert_eq!(shop.db.number(KEPT).await, 0);
    assert_eq!(publish(&shop).await.len(), 20);
    assert_eq!(shop.db.number(KEPT).await, 20);
}

/// Puts all that is kept back into the outbox, with these event ids.
async fn put_back<DB: ShopDb>(shop: &Shop<DB>, event_id: &str) {
    let columns = WHOLE.replace("event_id", event_id);
    let overriding = match DB::NAME {
        "PostgreSQL" => "overriding system value",
        _ => "",
    };
    let back = format!(
        "insert into effectively_outbox ({WHOLE}, available_at) {overriding} \
         select {columns}, published_at from effectively_published"
    );
    shop.db.execute(&back).await;
}

async fn an_event_that_is_published_again_is_kept_once<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..5).await;
    let first = publish(&shop).await.published();
    expire(&shop, "1 = 1").await;
    put_back(&shop, "event_id").await;
    let again = publish(&shop).await.published();
    let ids = |events: &[effectively::Envelope]| events.iter().map(|event| event.id).collect();
    let (first, again): (Vec<_>, Vec<_>) = (ids(&first), ids(&again));
    assert_eq!(first, again);
    assert_eq!(shop.db.number(KEPT).await, 5);
    assert_eq!(purge(&shop).await, 0, "their time begins anew");
}

/// As after a restore from a backup: the database counts from there on, and another event gets the place.
async fn a_place_that_is_given_out_again_stops_no_relay<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..1).await;
    publish(&shop).await;
    let other = match DB::NAME {
        "PostgreSQL" => "'00112233-4455-6677-8899-aabbccddeeff'::uuid",
        _ => "x'00112233445566778899aabbccddeeff'",
    };
    put_back(&shop, other).await;
    assert_eq!(publish(&shop).await.len(), 1);
    assert_eq!(shop.db.number(KEPT).await, 2);
}

async fn many_are_purged_in_batches_and_younger_ones_stay<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada", "bob", "cy", "dan", "eve"], 0..500)
        .await;
    publish(&shop).await;
    expire(&shop, "partition_key <> 'eve'").await;
    let mut told = Vec::new();
    let outbox = shop.ledger.outbox();
    let purged = outbox.purge_published_with(|purged| told.push(purged));
    assert_eq!(purged.await.expect("a purge"), 2000);
    assert_eq!(told, [1000, 2000, 2000]);
    assert_eq!(shop.db.number(KEPT).await, 500);
}

async fn tables_of_another_name_keep_too<DB: ShopDb>(db: TestDb<DB>) {
    let ledger = Ledger::builder(db.pool().clone()).table_prefix("once_");
    keeps_on(db, ledger.build().expect("a ledger"), "once_").await;
}

async fn a_schema_of_its_own_keeps_too<DB: ShopDb>(db: TestDb<DB>) {
    let ledger = Ledger::builder(db.pool().clone())
        .schema("toolkit")
        .table_prefix("once_");
    keeps_on(db, ledger.build().expect("a ledger"), "toolkit.once_").await;
}

async fn keeps_on<DB: ShopDb>(db: TestDb<DB>, ledger: Ledger<DB>, prefix: &str) {
    ledger.migrate().await.expect("the toolkit's tables");
    let shop = Shop { db, ledger };
    shop.numbers(&["ada"], 0..10).await;
    assert_eq!(publish(&shop).await.len(), 10);
    let kept = format!("select count(*) from {prefix}published");
    assert_eq!(shop.db.number(&kept).await, 10);
    assert_eq!(purge(&shop).await, 0);
}

async fn a_time_out_of_bounds_is_refused<DB: ShopDb>(db: TestDb<DB>) {
    let day = Duration::from_secs(24 * 3600);
    for (retention, fine) in [
        (Duration::ZERO, false),
        (Duration::from_millis(999), false),
        (Duration::from_secs(1), true),
        (day * 3650, true),
        (day * 3651, false),
        (Duration::MAX, false),
    ] {
        let relay = Relay::builder(Ledger::new(db.pool().clone())).route("*", Memory::new());
        match relay.keep_published(retention).build() {
            Ok(_) => assert!(fine, "{retention:?}"),
            Err(error) => {
                assert!(!fine, "{retention:?}: {error}");
                assert!(matches!(error.kind(), ErrorKind::Settings(_)), "{error}");
            }
        }
    }
}
