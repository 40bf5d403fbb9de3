//! What happens when a sink refuses, is down, or panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use effectively::sink::{Delivery, Memory, Sink};
use effectively::{Emit, Envelope, Order, Route};
use effectively_tests::{TestDb, eventually, on_every_database};

use crate::shop::{Mail, Numbered, Running, SOON, Shop, ShopDb, brisk, in_order};

on_every_database!(
    a_refused_event_is_tried_again_while_its_key_waits,
    with_skip_later_events_of_the_key_pass_it,
    what_is_refused_to_the_end_becomes_a_dead_letter_and_its_key_goes_on,
    what_is_refused_for_good_becomes_a_dead_letter_at_once,
    a_dead_letter_can_be_put_back_and_discarded,
    a_sink_that_is_down_counts_no_attempt_and_loses_nothing,
    a_route_that_is_down_does_not_stop_another,
    a_key_that_waits_still_waits_for_the_next_relay,
    a_sink_that_panics_over_an_event_loses_only_that_one,
    a_sink_that_panics_lets_nothing_pass_what_another_refused,
    a_sink_without_an_order_gets_one_event_of_a_key_at_a_time,
);

/// A route whose second tries come soon.
fn impatient(sink: impl Sink) -> Route {
    Route::to(sink).backoff(Duration::from_millis(20), Duration::from_millis(40))
}

fn number(event: &Envelope) -> u64 {
    Numbered::from(event).number
}

async fn a_refused_event_is_tried_again_while_its_key_waits<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada", "bob"], 0..10).await;
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let sink = Memory::new().judged_by(move |event| {
        let refused = event.partition_key.as_deref() == Some("ada") && number(event) == 4;
        (refused && counted.fetch_add(1, Ordering::SeqCst) < 3)
            .then(|| Delivery::rejected("not yet"))
    });
    let relay =
        Running::start(brisk(shop.ledger.clone()).route("numbers", impatient(sink.clone())));
    shop.drained().await;
    relay.stop().await;
    let of_key = in_order(&sink.published());
    assert_eq!(of_key["ada"], (0..10).collect::<Vec<_>>());
    assert_eq!(of_key["bob"], (0..10).collect::<Vec<_>>());
    assert_eq!(tries.load(Ordering::SeqCst), 4);
    let attempts = |event: &Envelope| event.attempts;
    let refused = sink.published();
    let refused = refused
        .iter()
        .find(|event| attempts(event) > 0)
        .expect("it");
    assert_eq!((attempts(refused), number(refused)), (3, 4));
}

async fn with_skip_later_events_of_the_key_pass_it<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..10).await;
    let refuses = Arc::new(AtomicBool::new(true));
    let judge = Arc::clone(&refuses);
    let sink = Memory::new().judged_by(move |event| {
        let refused = number(event) == 0 && judge.load(Ordering::SeqCst);
        refused.then(|| Delivery::rejected("not yet"))
    });
    let route = impatient(sink.clone())
        .order(Order::Skip)
        .attempts(u16::MAX);
    let relay = Running::start(brisk(shop.ledger.clone()).route("numbers", route));
    eventually(SOON, async || sink.len() == 9).await;
    refuses.store(false, Ordering::SeqCst);
    shop.drained().await;
    relay.stop().await;
    let numbers: Vec<_> = sink.published().iter().map(number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]);
}

async fn what_is_refused_to_the_end_becomes_a_dead_letter_and_its_key_goes_on<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..5).await;
    let sink = Memory::new()
        .judged_by(|event| (number(event) == 2).then(|| Delivery::rejected("no room")));
    let route = impatient(sink.clone()).attempts(3);
    let relay = Running::start(brisk(shop.ledger.clone()).route("numbers", route));
    shop.drained().await;
    relay.stop().await;
    assert_eq!(in_order(&sink.published())["ada"], [0, 1, 3, 4]);
    let letters = shop.ledger.outbox().dead_letters(0, 10).await;
    let letters = letters.expect("the dead letters");
    let [letter] = &letters[..] else {
        panic!("{letters:?}");
    };
    assert_eq!((letter.attempts, letter.error.as_str()), (3, "no room"));
    assert_eq!(
        (letter.topic.as_str(), letter.name.as_str()),
        ("numbers", "numbered.v1")
    );
    assert_eq!(letter.partition_key.as_deref(), Some("ada"));
    assert!(
        letter.failed_at >= letter.staged_at && !letter.staged_at.is_zero(),
        "{letter:?}"
    );
    let kept: Numbered = serde_json::from_slice(&letter.data).expect("its body");
    assert_eq!(kept.number, 2);
}

async fn what_is_refused_for_good_becomes_a_dead_letter_at_once<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada", "bob", "cy"], 0..4).await;
    let sink = Memory::new().judged_by(|event| {
        (event.partition_key.as_deref() == Some("bob"))
            .then(|| Delivery::refused_for_good("too large"))
    });
    // With its pauses the route would need an hour.
    let route = Route::to(sink.clone()).backoff(SOON * 100, SOON * 100);
    let relay = Running::start(brisk(shop.ledger.clone()).route("numbers", route));
    shop.drained().await;
    relay.stop().await;
    assert_eq!(sink.len(), 8);
    let backlog = shop.ledger.outbox().backlog().await.expect("a backlog");
    assert_eq!(backlog.dead_letters, 4);
}

async fn a_dead_letter_can_be_put_back_and_discarded<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..3).await;
    let before = shop.ledger.outbox().peek(3).await.expect("the outbox");
    let refuses = Arc::new(AtomicBool::new(true));
    let judge = Arc::clone(&refuses);
    let sink = Memory::new().judged_by(move |_| {
        judge
            .load(Ordering::SeqCst)
            .then(|| Delivery::refused_for_good("closed"))
    });
    let relay = shop.relay(&sink);
    shop.drained().await;
    refuses.store(false, Ordering::SeqCst);
    let outbox = shop.ledger.outbox();
    let letters = outbox.dead_letters(0, 10).await.expect("the dead letters");
    assert_eq!(letters.len(), 3);
    let second_page = outbox.dead_letters(letters[0].id, 1).await.expect("a page");
    assert_eq!(second_page, letters[1..2]);
    assert!(outbox.retry(letters[2].id).await.expect("put back"));
    assert!(!outbox.retry(letters[2].id).await.expect("no more there"));
    assert!(outbox.discard(letters[0].id).await.expect("discarded"));
    assert!(!outbox.discard(letters[0].id).await.expect("no more there"));
    shop.drained().await;
    relay.stop().await;
    let [published] = &sink.published()[..] else {
        panic!("{:?}", sink.published());
    };
    assert_eq!(published.id, before[2].id, "its id never changes");
    assert_eq!(published.outbox_id, before[2].outbox_id);
    let left = outbox.dead_letters(0, 10).await.expect("the dead letters");
    assert_eq!(left, letters[1..2]);
}

async fn a_sink_that_is_down_counts_no_attempt_and_loses_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada", "bob"], 0..20).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let sink = Memory::new().judged_by(move |_| {
        (counted.fetch_add(1, Ordering::SeqCst) < 6)
            .then(|| Delivery::unavailable("no route to host"))
    });
    let route = Route::to(sink.clone()).attempts(1);
    let relay = Running::start(brisk(shop.ledger.clone()).route("numbers", route));
    shop.drained().await;
    relay.stop().await;
    let of_key = in_order(&sink.published());
    assert_eq!((of_key["ada"].len(), of_key["bob"].len()), (20, 20));
    assert!(sink.published().iter().all(|event| event.attempts == 0));
    let backlog = shop.ledger.outbox().backlog().await.expect("a backlog");
    assert_eq!(backlog.dead_letters, 0);
}

async fn a_route_that_is_down_does_not_stop_another<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let down = Memory::new().judged_by(|_| Some(Delivery::unavailable("no route to host")));
    let up = Memory::new();
    let relay = Running::start(
        brisk(shop.ledger.clone())
            .route("mail.*", down)
            .route("numbers", up.clone())
            .batch(16),
    );
    // More of the one that is down than a batch, before all that can be published.
    for _ in 0..4 {
        let mails = (0..50).map(|number| Mail(Numbered::of("ada", number)));
        shop.emit(Emit::new(()).events(mails)).await;
    }
    shop.numbers(&["ada", "bob"], 0..50).await;
    eventually(SOON, async || up.len() == 100).await;
    relay.stop().await;
    assert_eq!(shop.pending().await, 200);
}

async fn a_key_that_waits_still_waits_for_the_next_relay<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada", "bob"], 0..5).await;
    let refusing = Memory::new().judged_by(|event| {
        (event.partition_key.as_deref() == Some("ada")).then(|| Delivery::rejected("not yet"))
    });
    let pause = Duration::from_secs(2);
    let route = |sink: &Memory| Route::to(sink.clone()).backoff(pause, pause);
    let first = Running::start(brisk(shop.ledger.clone()).route("numbers", route(&refusing)));
    eventually(SOON, async || {
        refusing.len() == 5 && shop.pending().await == 5
    })
    .await;
    first.stop().await;
    let sink = Memory::new();
    let second = Running::start(brisk(shop.elsewhere()).route("numbers", route(&sink)));
    shop.numbers(&["bob"], 5..6).await;
    eventually(SOON, async || sink.len() == 1).await;
    shop.drained().await;
    second.stop().await;
    let published = sink.published();
    assert_eq!(published[0].partition_key.as_deref(), Some("bob"));
    assert_eq!(in_order(&published)["ada"], [0, 1, 2, 3, 4]);
}

async fn a_sink_that_panics_over_an_event_loses_only_that_one<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada", "bob", "cy"], 0..10).await;
    let sink = Memory::new().judged_by(|event| {
        assert!(
            event.partition_key.as_deref() != Some("bob") || number(event) != 3,
            "a planted bug"
        );
        None
    });
    let route = impatient(sink.clone()).attempts(2);
    let relay = Running::start(brisk(shop.ledger.clone()).route("numbers", route));
    shop.drained().await;
    relay.stop().await;
    let of_key = in_order(&sink.published());
    assert_eq!(of_key["ada"].len() + of_key["cy"].len(), 20);
    assert_eq!(of_key["bob"], [0, 1, 2, 4, 5, 6, 7, 8, 9]);
    let letters = shop.ledger.outbox().dead_letters(0, 10).await;
    assert_eq!(letters.expect("the dead letters").len(), 1);
}

async fn a_sink_that_panics_lets_nothing_pass_what_another_refused<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    // One key, so one partition and one batch of both topics.
    let mails = (0..5).map(|number| Mail(Numbered::of("ada", number)));
    let numbers = (0..5).map(|number| Numbered::of("ada", number));
    shop.emit(Emit::new(()).events(mails).events(numbers)).await;
    let has_panicked = AtomicBool::new(false);
    let panics = Memory::new().judged_by(move |_| {
        assert!(has_panicked.swap(true, Ordering::SeqCst), "a planted bug");
        None
    });
    let sink = Memory::new().judged_by(|event| {
        (number(event) == 0 && event.attempts == 0).then(|| Delivery::rejected("not yet"))
    });
    // Long enough for what stands behind it.
    let pause = Duration::from_secs(1);
    let relay = Running::start(
        brisk(shop.ledger.clone())
            .route("mail.*", panics.clone())
            .route("numbers", Route::to(sink.clone()).backoff(pause, pause)),
    );
    shop.drained().await;
    relay.stop().await;
    for sink in [panics, sink] {
        assert_eq!(in_order(&sink.published())["ada"], [0, 1, 2, 3, 4]);
    }
}

/// Refuses each event once, and notes what it was handed at the same time.
#[derive(Clone, Default)]
struct Unordered {
    seen: Arc<std::sync::Mutex<Vec<Vec<Envelope>>>>,
    sink: Memory,
}

impl Sink for Unordered {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        self.seen.lock().expect("the calls").push(batch.to_vec());
        let mut answers = Vec::new();
        for event in batch {
            if event.attempts == 0 && number(event).is_multiple_of(5) {
                answers.push(Delivery::rejected("not yet"));
            } else {
                answers.extend(self.sink.publish(std::slice::from_ref(event)).await);
            }
        }
        answers
    }
}

async fn a_sink_without_an_order_gets_one_event_of_a_key_at_a_time<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada", "bob", "cy", "dan"], 0..20).await;
    let sink = Unordered::default();
    let relay =
        Running::start(brisk(shop.ledger.clone()).route("numbers", impatient(sink.clone())));
    shop.drained().await;
    relay.stop().await;
    for batch in sink.seen.lock().expect("the calls").iter() {
        let mut keys: Vec<_> = batch.iter().map(|event| &event.partition_key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(
            keys.len(),
            batch.len(),
            "a key was handed over twice at once"
        );
    }
    let of_key = in_order(&sink.sink.published());
    for key in ["ada", "bob", "cy", "dan"] {
        assert_eq!(of_key[key], (0..20).collect::<Vec<_>>());
    }
}
