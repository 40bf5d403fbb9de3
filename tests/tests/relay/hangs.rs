//! An event on which a sink hangs: it uses up its attempts, and the others pass. A sink that hangs on all of them is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use effectively::sink::{Delivery, Effect, EffectError, Memory, Sink};
use effectively::{Envelope, Route};
use effectively_tests::{TestDb, eventually, on_every_database};

use crate::shop::{Numbered, Running, SOON, Shop, ShopDb, brisk, in_order};

on_every_database!(
    an_event_on_which_an_effect_hangs_becomes_a_dead_letter_while_others_pass,
    an_event_on_which_a_whole_batch_hangs_becomes_a_dead_letter_while_others_pass,
    a_sink_in_order_that_hangs_on_one_event_keeps_the_order_of_all_others,
    an_event_that_hangs_and_is_alone_lets_its_own_key_go_on_in_the_end,
    a_sink_that_hangs_on_everything_buries_nothing,
);

const PATIENCE: Duration = Duration::from_millis(300);

/// Hangs over a whole call as soon as one of its events is among `hangs`.
struct Hanging {
    keeps_order: bool,
    hangs: Box<dyn Fn(&Numbered) -> bool + Send + Sync>,
    hung: Arc<AtomicUsize>,
    sink: Memory,
}

impl Sink for Hanging {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let hangs = |event: &Envelope| (self.hangs)(&Numbered::from(event));
        if batch.iter().any(hangs) {
            self.hung.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        self.sink.publish(batch).await
    }

    fn keeps_order(&self) -> bool {
        self.keeps_order
    }
}

fn hanging(
    keeps_order: bool,
    hangs: impl Fn(&Numbered) -> bool + Send + Sync + 'static,
) -> (Hanging, Memory, Arc<AtomicUsize>) {
    let (sink, hung) = (Memory::new(), Arc::new(AtomicUsize::new(0)));
    let hanging = Hanging {
        keeps_order,
        hangs: Box::new(hangs),
        hung: Arc::clone(&hung),
        sink: sink.clone(),
    };
    (hanging, sink, hung)
}

fn is_poison(event: &Numbered) -> bool {
    event.key == "poison" && event.number == 0
}

fn impatient(sink: impl Sink, attempts: u16) -> Route {
    let (first, longest) = (Duration::from_millis(50), Duration::from_millis(200));
    Route::to(sink).attempts(attempts).backoff(first, longest)
}

async fn letters<DB: ShopDb>(shop: &Shop<DB>) -> Vec<(Numbered, String, u16)> {
    let letters = shop.ledger.outbox().dead_letters(0, 100).await;
    let letters = letters.expect("the dead letters").into_iter();
    let of = |data: &[u8]| serde_json::from_slice(data).expect("a numbered event");
    letters
        .map(|letter| (of(&letter.data), letter.error, letter.attempts))
        .collect()
}

/// The poison first, then 20 events of each of 20 keys, then one more of the poison's key.
async fn emit_poison_and_400<DB: ShopDb>(shop: &Shop<DB>) {
    shop.numbers(&["poison"], 0..1).await;
    let keys: Vec<String> = (0..20).map(|key| format!("key {key}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    shop.numbers(&keys, 0..20).await;
    shop.numbers(&["poison"], 1..2).await;
}

async fn assert_only_the_poison_is_dead<DB: ShopDb>(shop: &Shop<DB>, sink: &Memory, attempts: u16) {
    shop.drained().await;
    let of_key = in_order(&sink.published());
    assert_eq!(of_key["poison"], [1]);
    assert_eq!(of_key.values().map(Vec::len).sum::<usize>(), 401);
    let letters = letters(shop).await;
    let [(event, error, tried)] = &letters[..] else {
        panic!("{letters:?}");
    };
    assert!(is_poison(event) && *tried == attempts, "{letters:?}");
    assert!(error.contains("answer"), "{error}");
}

async fn an_event_on_which_an_effect_hangs_becomes_a_dead_letter_while_others_pass<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    emit_poison_and_400(&shop).await;
    let (sink, hung) = (Memory::new(), Arc::new(AtomicUsize::new(0)));
    let (applied, counted) = (sink.clone(), Arc::clone(&hung));
    let effect = Effect::new(move |event: Envelope, _| {
        let (applied, counted) = (applied.clone(), Arc::clone(&counted));
        async move {
            if is_poison(&Numbered::from(&event)) {
                counted.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<()>().await;
            }
            applied.publish(&[event]).await;
            Ok::<_, EffectError>(())
        }
    });
    let route = impatient(effect.timeout(PATIENCE).concurrency(64), 3);
    let relay = Running::start(brisk(shop.ledger.clone()).route("numbers", route));
    let begun = Instant::now();
    // A single event that hangs costs its route a few times its patience, not one for each of the others.
    eventually(PATIENCE * 30, async || sink.len() >= 400).await;
    let took = begun.elapsed();
    assert_only_the_poison_is_dead(&shop, &sink, 3).await;
    relay.stop().await;
    // For each attempt once among others, and once alone.
    assert!(hung.load(Ordering::SeqCst) <= 6, "{hung:?} in {took:?}");
}

async fn an_event_on_which_a_whole_batch_hangs_becomes_a_dead_letter_while_others_pass<
    DB: ShopDb,
>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    emit_poison_and_400(&shop).await;
    let (hanging, sink, _) = hanging(false, is_poison);
    let relay = brisk(shop.ledger.clone()).publish_timeout(PATIENCE);
    let relay = Running::start(relay.route("numbers", impatient(hanging, 2)));
    assert_only_the_poison_is_dead(&shop, &sink, 2).await;
    relay.stop().await;
}

async fn a_sink_in_order_that_hangs_on_one_event_keeps_the_order_of_all_others<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    emit_poison_and_400(&shop).await;
    let (hanging, sink, _) = hanging(true, is_poison);
    let relay = brisk(shop.ledger.clone()).publish_timeout(PATIENCE);
    let relay = Running::start(relay.route("numbers", impatient(hanging, 2)));
    assert_only_the_poison_is_dead(&shop, &sink, 2).await;
    relay.stop().await;
}

async fn an_event_that_hangs_and_is_alone_lets_its_own_key_go_on_in_the_end<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    shop.numbers(&["poison"], 0..3).await;
    let (hanging, sink, hung) = hanging(false, is_poison);
    let relay = brisk(shop.ledger.clone()).publish_timeout(PATIENCE);
    let relay = Running::start(relay.route("numbers", impatient(hanging, 2)));
    shop.drained().await;
    relay.stop().await;
    assert_eq!(in_order(&sink.published())["poison"], [1, 2]);
    assert_eq!(
        (letters(&shop).await.len(), hung.load(Ordering::SeqCst)),
        (1, 2)
    );
}

async fn a_sink_that_hangs_on_everything_buries_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada", "bob", "cy"], 0..5).await;
    let hangs = Arc::new(AtomicBool::new(true));
    let judge = Arc::clone(&hangs);
    let (hanging, sink, hung) = hanging(false, move |_| judge.load(Ordering::SeqCst));
    let relay = brisk(shop.ledger.clone()).publish_timeout(Duration::from_millis(30));
    let relay = Running::start(relay.route("numbers", impatient(hanging, 2)));
    eventually(SOON, async || hung.load(Ordering::SeqCst) >= 9).await;
    hangs.store(false, Ordering::SeqCst);
    shop.drained().await;
    relay.stop().await;
    assert_eq!(letters(&shop).await, []);
    let of_key = in_order(&sink.published());
    for key in ["ada", "bob", "cy"] {
        assert_eq!(of_key[key], [0, 1, 2, 3, 4]);
    }
}
