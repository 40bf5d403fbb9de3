//! A key is parked while an event of it waits to be tried again: on its own route, and however many are parked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use effectively::sink::{Delivery, Memory, Sink};
use effectively::{Emit, Envelope, Order, Route};
use effectively_tests::{TestDb, eventually, on_every_database};

use crate::shop::{Mail, Numbered, Running, SOON, Shop, ShopDb, brisk, in_order};

on_every_database!(
    a_route_that_refuses_everything_does_not_stop_another,
    a_key_that_waits_on_one_route_goes_on_on_another,
    a_hundred_thousand_parked_keys_do_not_slow_down_another_route,
    any_number_of_topics_can_wait_for_a_sink_that_is_down,
    topics_of_one_route_share_their_parked_keys_and_a_more_exact_route_has_its_own,
    what_may_be_passed_holds_up_its_key_on_no_other_route,
    keys_that_are_nearly_equal_are_not_mistaken_for_each_other,
);

/// A route that does not try again while the test runs.
fn once(sink: impl Sink) -> Route {
    Route::to(sink).backoff(SOON * 100, SOON * 100)
}

fn refusing() -> Memory {
    Memory::new().judged_by(|_| Some(Delivery::rejected("the receiver answers 500")))
}

async fn waiting<DB: ShopDb>(shop: &Shop<DB>) -> u64 {
    let backlog = shop.ledger.outbox().backlog().await;
    backlog.expect("a backlog").retrying
}

async fn mails<DB: ShopDb>(shop: &Shop<DB>, keys: impl Iterator<Item = String>, number: u64) {
    let mails = keys.map(|key| Mail(Numbered::of(&key, number)));
    shop.emit(Emit::new(()).events(mails)).await;
}

/// How long 64 events take from their commit to the sink.
async fn time_of_64<DB: ShopDb>(shop: &Shop<DB>, well: &Memory, number: u64) -> Duration {
    let (begun, before) = (Instant::now(), well.len());
    let keys: Vec<String> = (0..64).map(|key| format!("other {key}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    shop.numbers(&keys, number..number + 1).await;
    eventually(SOON * 3, async || match well.len() - before {
        64 => Ok(()),
        arrived => Err(format!("{arrived} of 64 events arrived")),
    })
    .await;
    begun.elapsed()
}

async fn a_route_that_refuses_everything_does_not_stop_another<DB: ShopDb>(db: TestDb<DB>) {
    const REFUSED: u64 = 1500;
    let shop = Shop::open(db).await;
    mails(&shop, (0..REFUSED).map(|n| format!("customer {n}")), 0).await;
    let well = Memory::new();
    let relay = Running::start(
        brisk(shop.ledger.clone())
            .route("mail.*", once(refusing()))
            .route("numbers", well.clone()),
    );
    eventually(SOON * 2, async || waiting(&shop).await == REFUSED).await;
    time_of_64(&shop, &well, 0).await;
    relay.stop().await;
}

async fn a_key_that_waits_on_one_route_goes_on_on_another<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let refuses = Arc::new(AtomicBool::new(true));
    let judge = Arc::clone(&refuses);
    let mail = Memory::new().judged_by(move |_| {
        let refused = judge.load(Ordering::SeqCst);
        refused.then(|| Delivery::rejected("not yet"))
    });
    let well = Memory::new();
    let relay = Running::start(
        brisk(shop.ledger.clone())
            .route("mail.*", once(mail.clone()))
            .route("numbers", well.clone()),
    );
    for number in 0..5 {
        mails(&shop, std::iter::once("ada".to_owned()), number).await;
    }
    eventually(SOON, async || waiting(&shop).await == 1).await;
    shop.numbers(&["ada"], 0..5).await;
    eventually(SOON, async || well.len() == 5).await;
    assert!(mail.is_empty(), "later mails have passed the first");
    refuses.store(false, Ordering::SeqCst);
    let now = match DB::NAME {
        "PostgreSQL" => "now()",
        "MySQL" => "utc_timestamp(6)",
        _ => "0",
    };
    let due = format!("update effectively_outbox set available_at = {now}");
    shop.db.execute(&due).await;
    shop.drained().await;
    relay.stop().await;
    for sink in [mail, well] {
        assert_eq!(in_order(&sink.published())["ada"], [0, 1, 2, 3, 4]);
    }
}

/// Events straight into the outbox: `{n}` in a value is their number, from 0 to 10 to the power of `digits`.
async fn fill<DB: ShopDb>(shop: &Shop<DB>, digits: usize, topic: &str, key: &str, waits: bool) {
    let (id, now, later) = match DB::NAME {
        "PostgreSQL" => ("gen_random_uuid()", "now()", "now() + interval '1 hour'"),
        "MySQL" => (
            "unhex(md5(rand()))",
            "utc_timestamp(6)",
            "utc_timestamp(6) + interval 1 hour",
        ),
        _ => ("randomblob(16)", "0", "99999999999999"),
    };
    let digit = "(select 0 as d union all select 1 union all select 2 union all select 3 union all select 4 \
         union all select 5 union all select 6 union all select 7 union all select 8 union all select 9)";
    let from: Vec<String> = (0..digits.max(1))
        .map(|place| format!("{digit} as d{place}"))
        .collect();
    let number: Vec<String> = (0..digits.max(1))
        .map(|place| format!("{} * d{place}.d", 10_u32.pow(place as u32)))
        .collect();
    let only = 10_u32.pow(digits as u32);
    let (partition, attempts, due) = match waits {
        true => ("-1 - n % 64", 1, later),
        false => ("n % 64", 0, now),
    };
    let text = |template: &str| {
        let (before, after) = template.split_once("{n}").unwrap_or((template, ""));
        match (template.contains("{n}"), DB::NAME) {
            (false, _) => format!("'{template}'"),
            (true, "MySQL") => format!("concat('{before}', n, '{after}')"),
            (true, _) => format!("'{before}' || n || '{after}'"),
        }
    };
    let fill = format!(
        "insert into effectively_outbox (event_id, topic, type, partition_key, partition_no, data, created_at, available_at, attempts) \
         select {id}, {}, 'numbered.v1', {}, {partition}, '{{}}', {now}, {due}, {attempts} \
         from (select {} as n from {}) as numbers where n < {only}",
        text(topic),
        text(key),
        number.join(" + "),
        from.join(", ")
    );
    shop.db.execute(&fill).await;
}

async fn a_hundred_thousand_parked_keys_do_not_slow_down_another_route<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let (mail, well) = (Memory::new(), Memory::new());
    let relay = || {
        Running::start(
            brisk(shop.ledger.clone())
                .route("mail.*", mail.clone())
                .route("numbers", well.clone()),
        )
    };
    let first = relay();
    time_of_64(&shop, &well, 0).await;
    let without = time_of_64(&shop, &well, 1).await;
    first.stop().await;
    // As a receiver that refused the first event of each key leaves it.
    fill(&shop, 5, "mail.welcome", "customer {n}", true).await;
    fill(&shop, 5, "mail.welcome", "customer {n}", false).await;
    let second = relay();
    time_of_64(&shop, &well, 2).await;
    let with = time_of_64(&shop, &well, 3).await;
    second.stop().await;
    assert_eq!(waiting(&shop).await, 100_000);
    assert!(mail.is_empty(), "{} events passed what waits", mail.len());
    // A look at each event behind, and not a comparison of each with each, which takes minutes.
    let most = without + Duration::from_secs(10);
    assert!(with < most, "{with:?}, and {without:?} without them");
}

async fn any_number_of_topics_can_wait_for_a_sink_that_is_down<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    fill(&shop, 4, "mail.{n}", "customer {n}", false).await;
    fill(&shop, 4, "unrouted.{n}", "customer {n}", false).await;
    let down = Memory::new().judged_by(|_| Some(Delivery::unavailable("no route to host")));
    let well = Memory::new();
    let relay = brisk(shop.ledger.clone())
        .route("mail.*", down)
        .route("numbers", well.clone());
    let relay = relay.build().expect("a relay");
    let control = relay.control();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(relay.run(async { _ = ended.await }));
    time_of_64(&shop, &well, 0).await;
    control.pause("mail.*").expect("a pattern");
    time_of_64(&shop, &well, 1).await;
    drop(end);
    running.await.expect("no panic").expect("an end in order");
    assert_eq!(shop.pending().await, 20_000);
}

async fn topics_of_one_route_share_their_parked_keys_and_a_more_exact_route_has_its_own<
    DB: ShopDb,
>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    // One key: where it is parked, only the first event is tried.
    for topic in [
        "mail.a",
        "mail.b",
        "mail.welcome",
        "mail.welcome.b",
        "mail%",
    ] {
        fill(&shop, 0, topic, "ada", false).await;
    }
    let (mail, welcome, rest) = (Memory::new(), Memory::new(), Memory::new());
    let refuse = |sink: &Memory, topic: &'static str| {
        let judge =
            move |event: &Envelope| (event.topic == topic).then(|| Delivery::rejected("not yet"));
        once(sink.clone().judged_by(judge))
    };
    let relay = Running::start(
        brisk(shop.ledger.clone())
            .route("mail.*", refuse(&mail, "mail.a"))
            .route("mail.welcome", refuse(&welcome, "mail.welcome"))
            .route("*", rest.clone()),
    );
    eventually(SOON, async || waiting(&shop).await == 2 && rest.len() == 1).await;
    fill(&shop, 0, "numbers", "ada", false).await;
    eventually(SOON, async || rest.len() == 2).await;
    fill(&shop, 0, "mail.welcome", "ada", false).await;
    fill(&shop, 0, "mail.b", "bob", false).await;
    eventually(SOON, async || mail.len() == 1).await;
    relay.stop().await;
    assert!(welcome.is_empty(), "it passed what waits on its route");
    assert_eq!(
        mail.published()[0].partition_key.as_deref(),
        Some("bob"),
        "the key is parked for all topics of the route"
    );
}

async fn what_may_be_passed_holds_up_its_key_on_no_other_route<DB: ShopDb>(db: TestDb<DB>) {
    const REFUSED: u64 = 100;
    let shop = Shop::open(db).await;
    let all = |_| "everybody".to_owned();
    mails(&shop, (0..REFUSED).map(all), 0).await;
    let well = Memory::new();
    let relay = Running::start(
        brisk(shop.ledger.clone())
            .route("mail.*", once(refusing()).order(Order::Skip))
            .route("numbers", well.clone()),
    );
    eventually(SOON, async || waiting(&shop).await == REFUSED).await;
    shop.numbers(&["everybody"], 0..100).await;
    eventually(SOON, async || well.len() == 100).await;
    relay.stop().await;
    let parked = match DB::NAME {
        "MySQL" => "parked is not null",
        "PostgreSQL" => "attempts <> 0 and not passable",
        _ => "attempts > 0 and passable = 0",
    };
    let parked = format!("select count(*) from effectively_outbox where {parked}");
    assert_eq!(shop.db.number(&parked).await, 0);
}

async fn keys_that_are_nearly_equal_are_not_mistaken_for_each_other<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let long = "customer ".repeat(2000);
    let one_more = format!("{long}1");
    let (refused, passes) = (
        ["ada", &long, "straße"],
        ["ada ", "ADA", "áda", &one_more, "strasse"],
    );
    // All in one partition, so that nothing but the key tells them apart.
    let in_one = "update effectively_outbox set partition_no = 5";
    shop.numbers(&refused, 0..2).await;
    shop.numbers(&passes, 0..2).await;
    shop.db.execute(in_one).await;
    let sink = Memory::new().judged_by(move |event| {
        let key = Numbered::from(event).key;
        let refused = key == "ada" || key.ends_with(' ') && key != "ada " || key == "straße";
        refused.then(|| Delivery::rejected("not yet"))
    });
    let relay = Running::start(brisk(shop.ledger.clone()).route("numbers", once(sink.clone())));
    eventually(SOON, async || waiting(&shop).await == 3).await;
    eventually(SOON, async || sink.len() == 2 * passes.len()).await;
    // No relay may have them at hand while they are moved.
    relay.stop().await;
    shop.numbers(&["ada"], 2..3).await;
    shop.numbers(&["ada "], 2..3).await;
    shop.db
        .execute(&format!("{in_one} where partition_no >= 0"))
        .await;
    let relay = Running::start(brisk(shop.ledger.clone()).route("numbers", once(sink.clone())));
    eventually(SOON, async || sink.len() == 2 * passes.len() + 1).await;
    relay.stop().await;
    assert_eq!(in_order(&sink.published())["ada "], [0, 1, 2]);
}
