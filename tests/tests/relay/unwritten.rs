//! What a sink says of an event is written down before the sink is asked again. If it cannot be, the sink is asked with pauses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use effectively::sink::{Delivery, Effect, EffectError, Memory};
use effectively::{DeadLetter, Ledger, Route};
use effectively_tests::{TestDb, eventually, on_every_database};
use sqlx::{ConnectOptions, Pool};

use crate::shop::{Numbered, Running, SOON, Shop, ShopDb, brisk, in_order};

on_every_database!(
    every_reason_can_be_stored,
    an_effect_that_fails_with_any_message_is_called_once_per_attempt,
    a_dead_letter_whose_number_is_taken_is_kept_beside_the_other,
    a_dead_letter_goes_back_although_its_place_was_given_out_again,
    an_event_that_was_refused_as_often_as_is_counted_is_published_with_pauses,
    an_event_that_cannot_become_a_dead_letter_waits_and_lets_others_pass,
    a_sink_is_asked_with_pauses_while_nothing_can_be_written,
);
on_every_database!([postgres] a_reason_is_stored_where_the_database_knows_few_characters);

async fn letters<DB: ShopDb>(ledger: &Ledger<DB>) -> Vec<DeadLetter> {
    let letters = ledger.outbox().dead_letters(0, 100).await;
    letters.expect("the dead letters")
}

/// A sink that refuses every event like this, and how often it was asked.
fn judging(
    judge: impl Fn(&Numbered) -> Option<Delivery> + Send + Sync + 'static,
) -> (Memory, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let sink = Memory::new().judged_by(move |event| {
        let answer = judge(&Numbered::from(event));
        counted.fetch_add(usize::from(answer.is_some()), Ordering::SeqCst);
        answer
    });
    (sink, asked)
}

/// Reasons that one database or the other does not take as text.
const REASONS: [&str; 5] = [
    "unexpected byte \0 in the name",
    "\u{feff}✗ 💥 \u{10ffff} \u{202e}",
    "",
    "'; drop table effectively_outbox; -- \\' \" ` $1 ? :x {outbox}",
    "\u{1b}[2J \r\n \u{7f} \u{85}",
];

async fn every_reason_can_be_stored<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let keys: Vec<String> = (0..=REASONS.len()).map(|key| key.to_string()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    shop.numbers(&keys, 0..3).await;
    let long = "💥".repeat(100_000);
    let (sink, asked) = judging(move |event| {
        let of_key: usize = event.key.parse().expect("a place");
        let reason = REASONS.get(of_key).copied().unwrap_or(&long).to_owned();
        match event.number {
            0 => Some(Delivery::refused_for_good(reason)),
            1 => Some(Delivery::rejected(reason)),
            _ => None,
        }
    });
    let pauses = Duration::from_millis(20);
    let route = Route::to(sink.clone()).attempts(2).backoff(pauses, pauses);
    let relay = Running::start(brisk(shop.ledger.clone()).route("numbers", route));
    shop.drained().await;
    relay.stop().await;
    assert_eq!(sink.len(), keys.len(), "the last event of each key");
    assert_eq!(asked.load(Ordering::SeqCst), keys.len() * 3);
    let errors: Vec<String> = letters(&shop.ledger)
        .await
        .into_iter()
        .map(|letter| letter.error)
        .collect();
    assert_eq!(errors.len(), keys.len() * 2);
    for error in &errors {
        assert!(!error.contains('\0') && error.chars().count() <= 500);
    }
    assert!(errors.iter().any(|error| error.contains("in the name")));
}

async fn an_effect_that_fails_with_any_message_is_called_once_per_attempt<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..1).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let charge = Effect::new(move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Err::<(), _>(EffectError::retry("card declined: \0")) }
    });
    let pauses = Duration::from_millis(50);
    let route = Route::to(charge).attempts(3).backoff(pauses, pauses);
    let relay = Running::start(brisk(shop.ledger.clone()).route("numbers", route));
    shop.drained().await;
    relay.stop().await;
    assert_eq!(letters(&shop.ledger).await.len(), 1);
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

fn now<DB: ShopDb>() -> &'static str {
    match DB::NAME {
        "PostgreSQL" => "now()",
        "MySQL" => "utc_timestamp(6)",
        _ => "0",
    }
}

fn other_id<DB: ShopDb>() -> &'static str {
    match DB::NAME {
        "PostgreSQL" => "'00112233-4455-6677-8899-aabbccddeeff'::uuid",
        _ => "x'00112233445566778899aabbccddeeff'",
    }
}

/// The events of the outbox as old dead letters.
async fn bury_copies<DB: ShopDb>(shop: &Shop<DB>, event_id: &str) {
    let copy = format!(
        "insert into effectively_dead_letters (id, event_id, topic, type, partition_key, partition_no, data, created_at, attempts, error, failed_at) \
         select id, {event_id}, topic, type, partition_key, partition_no, data, created_at, 1, 'old', {} from effectively_outbox",
        now::<DB>()
    );
    shop.db.execute(&copy).await;
}

/// A database that was restored, or is behind logical replication, gives places out again.
async fn a_dead_letter_whose_number_is_taken_is_kept_beside_the_other<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..3).await;
    bury_copies(&shop, other_id::<DB>()).await;
    let (sink, asked) =
        judging(|event| (event.number == 0).then(|| Delivery::refused_for_good("no")));
    let relay = shop.relay(&sink);
    shop.drained().await;
    relay.stop().await;
    assert_eq!((asked.load(Ordering::SeqCst), sink.len()), (1, 2));
    let letters = letters(&shop.ledger).await;
    let mut errors: Vec<&str> = letters.iter().map(|letter| &*letter.error).collect();
    errors.sort_unstable();
    assert_eq!(errors, ["no", "old", "old", "old"]);
    let new = letters.iter().find(|letter| letter.error == "no");
    let new = new.expect("the new one");
    assert!(shop.ledger.outbox().retry(new.id).await.expect("put back"));
    assert_eq!(shop.pending().await, 1);
}

async fn a_dead_letter_goes_back_although_its_place_was_given_out_again<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..1).await;
    bury_copies(&shop, other_id::<DB>()).await;
    let old = letters(&shop.ledger).await;
    assert!(
        shop.ledger
            .outbox()
            .retry(old[0].id)
            .await
            .expect("put back")
    );
    shop.numbers(&["ada"], 1..2).await;
    let sink = Memory::new();
    let relay = shop.relay(&sink);
    shop.drained().await;
    relay.stop().await;
    assert_eq!(sink.len(), 3);
    assert_eq!(letters(&shop.ledger).await, []);
}

/// The column holds 32,767; a route takes up to 65,535 attempts, which is as good as for ever.
async fn an_event_that_was_refused_as_often_as_is_counted_is_published_with_pauses<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..1).await;
    let most = "update effectively_outbox set attempts = 32767";
    shop.db.execute(most).await;
    let (sink, asked) = judging(|_| Some(Delivery::rejected("no")));
    let pause = Duration::from_millis(300);
    let route = Route::to(sink).attempts(u16::MAX).backoff(pause, pause);
    let relay = Running::start(brisk(shop.ledger.clone()).route("numbers", route));
    let begun = std::time::Instant::now();
    eventually(SOON, async || asked.load(Ordering::SeqCst) >= 6).await;
    relay.stop().await;
    // Five pauses, each of at least half its length.
    assert!(begun.elapsed() >= pause * 5 / 2, "{:?}", begun.elapsed());
    let attempts = "select attempts + 0 from effectively_outbox";
    let attempts = match DB::NAME {
        "PostgreSQL" => "select attempts::bigint from effectively_outbox",
        _ => attempts,
    };
    assert_eq!(shop.db.number(attempts).await, 32767);
}

/// From now on the database refuses this; what takes it back.
async fn forbid<DB: ShopDb>(shop: &Shop<DB>, what: &str, table: &str) -> String {
    let on = format!("before {what} on effectively_{table}");
    match DB::NAME {
        "PostgreSQL" => {
            shop.db
                .execute(&format!(
                    "create function forbidden() returns trigger language plpgsql as 'begin raise exception $$no$$; end'; \
                     create trigger forbidden {on} for each row execute function forbidden()"
                ))
                .await;
            format!("drop trigger forbidden on effectively_{table}")
        }
        "MySQL" => {
            let signal = "for each row signal sqlstate '45000' set message_text = 'no'";
            let trigger = format!("create trigger forbidden {on} {signal}");
            shop.db.execute(&trigger).await;
            "drop trigger forbidden".to_owned()
        }
        _ => {
            let raise = "begin select raise(abort, 'no'); end";
            let trigger = format!("create trigger forbidden {on} {raise}");
            shop.db.execute(&trigger).await;
            "drop trigger forbidden".to_owned()
        }
    }
}

async fn an_event_that_cannot_become_a_dead_letter_waits_and_lets_others_pass<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada", "bob"], 0..3).await;
    let in_one = "update effectively_outbox set partition_no = 5";
    shop.db.execute(in_one).await;
    let allow = forbid(&shop, "insert", "dead_letters").await;
    let (sink, asked) = judging(|event| {
        (event.key == "ada" && event.number == 0).then(|| Delivery::refused_for_good("no"))
    });
    let pause = Duration::from_millis(400);
    let route = Route::to(sink.clone()).backoff(pause, pause);
    let relay = Running::start(brisk(shop.ledger.clone()).route("numbers", route));
    let begun = std::time::Instant::now();
    eventually(SOON, async || asked.load(Ordering::SeqCst) >= 4).await;
    assert!(begun.elapsed() >= pause * 3 / 2, "{:?}", begun.elapsed());
    let of_key = in_order(&sink.published());
    assert_eq!((of_key["bob"].len(), of_key.len()), (3, 1));
    shop.db.execute(&allow).await;
    shop.drained().await;
    relay.stop().await;
    assert_eq!(in_order(&sink.published())["ada"], [1, 2]);
    let [letter] = &letters(&shop.ledger).await[..] else {
        panic!("it is no dead letter");
    };
    assert_eq!(letter.error, "no");
}

async fn a_sink_is_asked_with_pauses_while_nothing_can_be_written<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..2).await;
    let allow = forbid(&shop, "update", "outbox").await;
    let (sink, asked) = judging(|event| (event.number == 0).then(|| Delivery::rejected("not yet")));
    let pause = Duration::from_millis(20);
    let route = Route::to(sink.clone()).attempts(20).backoff(pause, pause);
    let relay = Running::start(brisk(shop.ledger.clone()).route("numbers", route));
    let begun = std::time::Instant::now();
    eventually(SOON, async || asked.load(Ordering::SeqCst) >= 3).await;
    // At least half of 1 s and half of 2 s.
    assert!(
        begun.elapsed() >= Duration::from_millis(1500),
        "{:?}",
        begun.elapsed()
    );
    assert!(sink.is_empty(), "a later event has passed");
    shop.db.execute(&allow).await;
    shop.drained().await;
    relay.stop().await;
    assert_eq!(letters(&shop.ledger).await.len(), 1);
}

async fn a_reason_is_stored_where_the_database_knows_few_characters<DB: ShopDb>(db: TestDb<DB>) {
    let name = format!(
        "effectively_latin1_{}",
        crate::shop::uuid().replace('-', "")
    );
    let create = format!(
        "create database {name} template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'"
    );
    db.execute(&create).await;
    let mut url = db.options(None).to_url_lossy();
    url.set_path(&name);
    let pool = Pool::<DB>::connect(url.as_str()).await.expect("a pool");
    let shop = Shop {
        db,
        ledger: Ledger::new(pool.clone()),
    };
    shop.ledger.migrate().await.expect("the toolkit's tables");
    shop.numbers(&["ada", "bob"], 0..2).await;
    let (sink, asked) = judging(|event| match event.number {
        0 if event.key == "ada" => Some(Delivery::refused_for_good("geht nicht: größer als ✗")),
        0 => Some(Delivery::rejected("💥")),
        _ => None,
    });
    let pause = Duration::from_millis(20);
    let route = Route::to(sink.clone()).attempts(2).backoff(pause, pause);
    let relay = Running::start(brisk(shop.ledger.clone()).route("numbers", route));
    shop.drained().await;
    relay.stop().await;
    assert_eq!((asked.load(Ordering::SeqCst), sink.len()), (3, 2));
    let letters = letters(&shop.ledger).await;
    let mut errors: Vec<&str> = letters.iter().map(|letter| &*letter.error).collect();
    errors.sort_unstable();
    assert_eq!(errors, ["?", "geht nicht: gr??er als ?"]);
    pool.close().await;
    shop.db.execute(&format!("drop database {name}")).await;
}
