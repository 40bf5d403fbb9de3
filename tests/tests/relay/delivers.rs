//! I3, I5: every committed event is published, of each key in the order of the outbox, and nothing is skipped.

use std::time::Duration;

use effectively::sink::{Delivery, Memory};
use effectively::{Emit, ErrorKind, Ledger, Relay};
use effectively_tests::{TestDb, eventually, on_every_database};

use crate::shop::{Mail, Numbered, Running, SOON, Shop, ShopDb, brisk, emit, in_order};

on_every_database!(
    every_event_is_published_once_in_the_order_of_its_key,
    an_event_is_published_with_all_that_it_carries,
    each_topic_goes_to_its_route_and_what_has_none_stays,
    a_delayed_event_waits_for_its_time_and_holds_up_nothing,
    what_is_committed_while_the_relay_runs_is_published_at_once,
    one_commit_wakes_all_relays_that_have_long_been_idle,
    one_key_with_much_is_published_in_its_order,
    a_paused_topic_waits_and_the_others_go_on,
    a_relay_that_ends_in_order_settles_and_leaves_nothing_behind,
    a_relay_without_tables_says_so,
    a_relay_works_on_tables_under_another_prefix,
);

on_every_database!([postgres] a_relay_works_in_a_schema_of_its_own);

on_every_database!(
    [postgres, mysql] an_event_that_commits_late_under_an_older_id_is_not_skipped,
);

const KEYS: [&str; 7] = ["ada", "bob", "cy", "dan", "eve", "fay", "gus"];

async fn every_event_is_published_once_in_the_order_of_its_key<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for batch in 0..10 {
        shop.numbers(&KEYS, batch * 30..(batch + 1) * 30).await;
    }
    let sink = Memory::new();
    let relay = shop.relay(&sink);
    shop.drained().await;
    relay.stop().await;
    let published = sink.published();
    assert_eq!(published.len(), 2100, "no copy is published twice");
    let of_key = in_order(&published);
    assert_eq!(of_key.len(), KEYS.len());
    for numbers in of_key.values() {
        assert_eq!(*numbers, (0..300).collect::<Vec<_>>());
    }
}

async fn an_event_is_published_with_all_that_it_carries<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let emission = Emit::new(()).event(Numbered::of("ada", 1));
    shop.emit(emission.header("tenant", "blue")).await;
    let stored = shop.ledger.outbox().peek(1).await.expect("the outbox");
    let sink = Memory::new();
    let relay = Running::start(
        brisk(shop.ledger.clone())
            .route("numbers", sink.clone())
            .source("/shop"),
    );
    shop.drained().await;
    relay.stop().await;
    let [published] = &sink.published()[..] else {
        panic!("{:?}", sink.published());
    };
    let mut stored = stored.into_iter().next().expect("the event");
    stored.source = "/shop".into();
    assert_eq!(*published, stored);
    let time = published.attributes().find(|(name, _)| *name == "time");
    let time = time.expect("a time").1;
    assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
}

async fn each_topic_goes_to_its_route_and_what_has_none_stays<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..3).await;
    shop.emit(Emit::new(()).event(Mail(Numbered::of("ada", 0))))
        .await;
    let (numbers, rest) = (Memory::new(), Memory::new());
    let one = Running::start(brisk(shop.ledger.clone()).route("numbers", numbers.clone()));
    eventually(SOON, async || numbers.len() == 3).await;
    eventually(SOON, async || shop.pending().await == 1).await;
    one.stop().await;
    let both = Running::start(
        brisk(shop.ledger.clone())
            .route("numbers", numbers.clone())
            .route("mail.*", rest.clone()),
    );
    shop.drained().await;
    both.stop().await;
    assert_eq!((numbers.len(), rest.len()), (3, 1));
}

async fn a_delayed_event_waits_for_its_time_and_holds_up_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let soon = Duration::from_millis(700);
    let emission = Emit::new(())
        .event_after(Duration::from_secs(3600), Numbered::of("ada", 9))
        .event_after(soon, Numbered::of("ada", 2))
        .event(Numbered::of("ada", 1));
    let begun = std::time::Instant::now();
    shop.emit(emission).await;
    let sink = Memory::new();
    let relay = shop.relay(&sink);
    eventually(SOON, async || sink.len() == 2).await;
    assert!(begun.elapsed() >= soon, "{:?}", begun.elapsed());
    let numbers: Vec<_> = sink
        .published()
        .iter()
        .map(Numbered::from)
        .map(|event| event.number)
        .collect();
    assert_eq!(numbers, [1, 2]);
    let backlog = shop.ledger.outbox().backlog().await.expect("a backlog");
    eventually(SOON, async || shop.pending().await == 1).await;
    assert_eq!((backlog.delayed, backlog.relays), (1, 1), "{backlog:?}");
    relay.stop().await;
}

async fn what_is_committed_while_the_relay_runs_is_published_at_once<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let sink = Memory::new();
    // Without a wake-up it would take a minute.
    let relay = Running::start(
        Relay::builder(shop.ledger.clone())
            .route("*", sink.clone())
            .poll(Duration::from_secs(60)),
    );
    shop.numbers(&["ada"], 0..1).await;
    eventually(SOON, async || sink.len() == 1).await;
    for number in 1..20 {
        shop.numbers(&["ada", "bob"], number..number + 1).await;
        let expected = 1 + 2 * usize::try_from(number).expect("small");
        eventually(Duration::from_secs(5), async || sink.len() == expected).await;
    }
    shop.drained().await;
    relay.stop().await;
    in_order(&sink.published());
}

/// A relay that finds nothing reads ever less often: after `IDLE` its pauses last some 4 to 8 s. Four of them, each with pauses of
/// its own, do not all read by chance within `AT_ONCE` of the commit.
async fn one_commit_wakes_all_relays_that_have_long_been_idle<DB: ShopDb>(db: TestDb<DB>) {
    const RELAYS: usize = 4;
    const IDLE: Duration = Duration::from_secs(8);
    const AT_ONCE: Duration = Duration::from_secs(2);
    let shop = Shop::open(db).await;
    let sink = Memory::new();
    let relay = || {
        Running::start(
            Relay::builder(shop.ledger.clone())
                .route("*", sink.clone())
                .poll(Duration::from_secs(60)),
        )
    };
    let relays: Vec<Running> = (0..RELAYS).map(|_| relay()).collect();
    eventually(SOON, async || shop.holders().await == [64 / RELAYS; RELAYS]).await;
    // Nothing is waited for here: that nothing happens for so long is the case under test.
    tokio::time::sleep(IDLE).await;
    assert_eq!(sink.len(), 0);
    // So many keys that each relay has some of them.
    let keys: Vec<String> = (0..200).map(|key| format!("key {key}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    shop.numbers(&keys, 0..1).await;
    eventually(AT_ONCE, async || sink.len() == 200).await;
    for relay in relays {
        relay.stop().await;
    }
}

async fn one_key_with_much_is_published_in_its_order<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..2000).await;
    let sink = Memory::new();
    let relay = Running::start(
        brisk(shop.ledger.clone())
            .route("numbers", sink.clone())
            .batch(64),
    );
    shop.drained().await;
    relay.stop().await;
    assert_eq!(sink.len(), 2000);
    assert_eq!(in_order(&sink.published())["ada"].len(), 2000);
}

async fn a_paused_topic_waits_and_the_others_go_on<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let sink = Memory::new();
    let relay = brisk(shop.ledger.clone()).route("*", sink.clone());
    let relay = relay.build().expect("a relay");
    let control = relay.control();
    control.pause("mail.*").expect("a pattern");
    assert!(control.pause("ma*il").is_err());
    let running = tokio::spawn(relay.run(std::future::pending()));
    shop.emit(Emit::new(()).event(Mail(Numbered::of("ada", 0))))
        .await;
    shop.numbers(&KEYS, 0..3).await;
    eventually(SOON, async || sink.len() == 21).await;
    eventually(SOON, async || shop.pending().await == 1).await;
    control.resume("mail.*").expect("a pattern");
    shop.drained().await;
    assert_eq!(sink.len(), 22);
    running.abort();
}

async fn a_relay_that_ends_in_order_settles_and_leaves_nothing_behind<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let sink = Memory::new().judged_by(|_| {
        std::thread::sleep(Duration::from_millis(30)); // the end comes while a batch is on its way
        None::<Delivery>
    });
    shop.numbers(&KEYS, 0..3).await;
    let relay = shop.relay(&sink);
    eventually(SOON, async || !sink.is_empty()).await;
    relay.stop().await;
    let left = shop.pending().await;
    assert_eq!(
        sink.len() as u64 + left,
        21,
        "what was published is settled"
    );
    let outbox = shop.ledger.outbox();
    let leases = outbox.leases().await.expect("the leases");
    assert_eq!(leases.len(), 64);
    assert!(
        leases.iter().all(|lease| lease.holder.is_none()),
        "{leases:?}"
    );
    assert_eq!(outbox.backlog().await.expect("a backlog").relays, 0);
}

async fn a_relay_without_tables_says_so<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::opened(db);
    let relay = Relay::builder(shop.ledger.clone()).route("*", Memory::new());
    let relay = relay.build().expect("a relay");
    let ended = relay.run(std::future::pending()).await;
    let error = ended.expect_err("no tables");
    assert_eq!(*error.kind(), ErrorKind::TablesMissing);
}

async fn a_relay_works_on_tables_under_another_prefix<DB: ShopDb>(db: TestDb<DB>) {
    let ledger = Ledger::builder(db.pool().clone()).table_prefix("once_");
    relays_on(db, ledger.build().expect("a ledger")).await;
}

async fn a_relay_works_in_a_schema_of_its_own<DB: ShopDb>(db: TestDb<DB>) {
    let ledger = Ledger::builder(db.pool().clone())
        .schema("toolkit")
        .table_prefix("once_");
    relays_on(db, ledger.build().expect("a ledger")).await;
}

async fn relays_on<DB: ShopDb>(db: TestDb<DB>, ledger: Ledger<DB>) {
    ledger.migrate().await.expect("the toolkit's tables");
    let shop = Shop { db, ledger };
    shop.numbers(&KEYS, 0..10).await;
    let sink = Memory::new();
    let relay = shop.relay(&sink);
    shop.drained().await;
    relay.stop().await;
    assert_eq!(sink.len(), 70);
}

async fn an_event_that_commits_late_under_an_older_id_is_not_skipped<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let sink = Memory::new();
    let relay = shop.relay(&sink);
    // A foreign transaction that took its ids first and commits last.
    shop.numbers(&["template"], 0..1).await;
    eventually(SOON, async || sink.len() == 1).await;
    let mut late = shop.db.admin().acquire().await.expect("a connection");
    DB::execute(&mut late, "begin")
        .await
        .expect("a transaction");
    let binary = if DB::NAME == "PostgreSQL" {
        "decode('00112233445566778899aabbccddeeff', 'hex')"
    } else {
        "x'00112233445566778899aabbccddeeff'"
    };
    let (id, now) = if DB::NAME == "PostgreSQL" {
        ("'00112233-4455-6677-8899-aabbccddeeff'", "now()")
    } else {
        (binary, "utc_timestamp(6)")
    };
    for partition in 0..64 {
        let insert = format!(
            "insert into effectively_outbox (event_id, topic, type, partition_key, partition_no, data, created_at, available_at) \
             values ({id}, 'numbers', 'numbered.v1', 'late {partition}', {partition}, \
             '{{\"key\":\"late {partition}\",\"number\":1}}', {now}, {now})"
        );
        DB::execute(&mut late, &insert).await.expect("a row");
    }
    for number in 0..20 {
        shop.numbers(&KEYS, number..number + 1).await;
    }
    eventually(SOON, async || sink.len() == 1 + 140).await;
    DB::execute(&mut late, "commit").await.expect("a commit");
    eventually(SOON, async || sink.len() == 1 + 140 + 64).await;
    shop.drained().await;
    relay.stop().await;
}

on_every_database!([postgres] a_long_transaction_elsewhere_does_not_stop_delivery);

async fn a_long_transaction_elsewhere_does_not_stop_delivery<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.db.execute("create table elsewhere (id int)").await;
    let mut long = shop.db.admin().acquire().await.expect("a connection");
    for statement in [
        "begin isolation level repeatable read",
        "insert into elsewhere values (1)",
    ] {
        DB::execute(&mut long, statement)
            .await
            .expect("a statement");
    }
    let sink = Memory::new();
    let relay = shop.relay(&sink);
    for number in 0..50 {
        emit(
            &shop.ledger,
            Emit::new(()).event(Numbered::of("ada", number)),
        )
        .await;
    }
    eventually(SOON, async || sink.len() == 50).await;
    shop.drained().await;
    relay.stop().await;
    DB::execute(&mut long, "rollback")
        .await
        .expect("a statement");
}
