//! What a sink does beside publishing, and what a database does not answer: the relay goes on, or `run` ends with an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use effectively::fault::{Action, arm, fired};
use effectively::sink::{Delivery, Memory, Sink, Unavailable};
use effectively::{Emit, Envelope, Error, ErrorKind, Failure, Key, Ledger, Relay, Route};
use effectively_tests::{Proxy, TestDb, Worker, eventually, on_every_database};
use tokio::time::timeout;

use crate::shop::{Numbered, Running, SOON, Shop, ShopDb, brisk, in_order, uuid};

on_every_database!(
    a_sink_that_panics_over_a_revoked_partition_ends_nothing,
    a_sink_that_never_returns_from_revoked_holds_up_no_other_partition,
    a_sink_that_panics_or_never_returns_while_it_takes_over_is_asked_again,
    a_panic_in_a_task_of_a_relay_ends_its_run_or_nothing,
    durations_out_of_bounds_are_refused_when_they_are_given,
);
on_every_database!([postgres, mysql]
    a_statement_that_is_never_answered_is_given_up,
    a_relay_ends_although_the_database_is_silent,
);

/// What a sink does beside publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Works,
    Panics,
    Hangs,
}

impl Habit {
    async fn indulge(self, over: &str) {
        match self {
            Self::Works => {}
            Self::Panics => panic!("{over}"),
            Self::Hangs => std::future::pending().await,
        }
    }
}

/// Publishes to memory.
#[derive(Debug, Clone)]
struct Moody {
    sink: Memory,
    assigned: Habit,
    /// How often `assigned` does that, before it works.
    times: Arc<AtomicUsize>,
    revoked: Habit,
}

impl Moody {
    fn new(assigned: Habit, revoked: Habit) -> Self {
        Self {
            sink: Memory::new(),
            assigned,
            times: Arc::new(AtomicUsize::new(3)),
            revoked,
        }
    }
}

impl Sink for Moody {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        self.sink.publish(batch).await
    }

    async fn assigned(&self, _: u16) -> Result<Vec<i64>, Unavailable> {
        let fewer = |times: usize| times.checked_sub(1);
        let spent = self
            .times
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer);
        if spent.is_ok() {
            self.assigned.indulge("a new partition").await;
        }
        Ok(Vec::new())
    }

    async fn revoked(&self, _: u16) {
        self.revoked.indulge("a revoked partition").await;
    }
}

/// Many keys, so that every partition has events.
fn keys() -> Vec<String> {
    (0..200).map(|key| format!("key {key}")).collect()
}

/// A second relay comes and goes, so that the first one gives partitions up and takes them back.
async fn publish_while_another_relay_comes_and_goes<DB: ShopDb>(shop: &Shop<DB>, sink: &Moody) {
    let keys = keys();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let _stays = Running::start(brisk(shop.elsewhere()).route("numbers", sink.clone()));
    shop.numbers(&keys, 0..2).await;
    shop.drained().await;
    let other = Running::start(brisk(shop.elsewhere()).route("numbers", sink.sink.clone()));
    eventually(SOON, async || shop.holders().await.len() == 2).await;
    shop.numbers(&keys, 2..4).await;
    shop.drained().await;
    other.stop().await;
    shop.numbers(&keys, 4..6).await;
    shop.drained().await;
    let of_key = in_order(&sink.sink.published());
    for key in keys {
        assert_eq!(of_key[key], (0..6).collect::<Vec<_>>(), "{key}");
    }
}

async fn a_sink_that_panics_over_a_revoked_partition_ends_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let sink = Moody::new(Habit::Works, Habit::Panics);
    publish_while_another_relay_comes_and_goes(&shop, &sink).await;
}

async fn a_sink_that_never_returns_from_revoked_holds_up_no_other_partition<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    let sink = Moody::new(Habit::Works, Habit::Hangs);
    publish_while_another_relay_comes_and_goes(&shop, &sink).await;
    let relay = Running::start(brisk(shop.elsewhere()).route("numbers", sink.clone()));
    shop.numbers(&["ada"], 0..1).await;
    shop.drained().await;
    let ended = timeout(SOON, relay.stop()).await;
    ended.expect("a relay that ends although its sink hangs");
}

async fn a_sink_that_panics_or_never_returns_while_it_takes_over_is_asked_again<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    for habit in [Habit::Panics, Habit::Hangs] {
        let sink = Moody::new(habit, Habit::Works);
        let keys = keys();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        shop.numbers(&keys, 0..2).await;
        let relay = brisk(shop.elsewhere()).publish_timeout(Duration::from_millis(200));
        let relay = Running::start(relay.route("numbers", sink.clone()));
        shop.drained().await;
        assert_eq!(in_order(&sink.sink.published()).len(), 200, "{habit:?}");
        relay.stop().await;
    }
}

/// Of each task of a relay one point or more.
const PANICS: [&str; 6] = [
    "after_heartbeat",
    "before_give_up",
    "after_due",
    "after_settle",
    "after_postpone",
    "after_suspect",
];

async fn a_panic_in_a_task_of_a_relay_ends_its_run_or_nothing<DB: ShopDb>(db: TestDb<DB>) {
    if Worker::input::<()>().is_some() {
        return panic_in_each_task(&Shop::opened(db)).await;
    }
    let shop = Shop::open(db).await;
    // Points belong to a process: in this one, the other tests pass them too.
    let mut worker = shop.db.worker(&());
    for point in PANICS {
        worker.expect(point).await;
    }
    assert!(worker.exit().await.success());
}

async fn panic_in_each_task<DB: ShopDb>(shop: &Shop<DB>) {
    for (round, point) in PANICS.into_iter().enumerate() {
        // An event that is tried again, one that is given up, and below a relay that crashes: every point is passed.
        let sink = Memory::new().judged_by(|event| match event.partition_key.as_deref() {
            Some("bob") if event.attempts == 0 => Some(Delivery::rejected("not now")),
            Some("cy") => Some(Delivery::refused_for_good("never")),
            _ => None,
        });
        let pauses = Duration::from_millis(20);
        let relay = || {
            let route = Route::to(sink.clone()).backoff(pauses, pauses);
            let relay = brisk(shop.elsewhere()).route("numbers", route);
            tokio::spawn(relay.build().expect("a relay").run(std::future::pending()))
        };
        let mut relays = [relay(), relay()];
        // Whoever runs a relay begins it again when it has ended. One that has not must hold its share, so its keeper lives.
        let mut held = async || {
            for ended in relays.iter_mut().filter(|relay| relay.is_finished()) {
                *ended = relay();
            }
            shop.holders().await
        };
        arm(Some((point, Action::Panic)));
        eventually(SOON, async || held().await == [32, 32]).await;
        shop.numbers(&["ada", "bob", "cy"], 0..2).await;
        shop.drained().await;
        let crashes = relay();
        eventually(SOON, async || held().await.len() == 3).await;
        crashes.abort();
        eventually(SOON, async || {
            if fired() == round as u64 {
                shop.numbers(&["ada", "bob", "cy", &uuid()], 0..1).await;
            }
            held().await == [32, 32] && shop.pending().await == 0
        })
        .await;
        assert_eq!(fired(), round as u64 + 1, "{point} never fired");
        relays.iter().for_each(tokio::task::JoinHandle::abort);
        Worker::say(point);
    }
}

async fn durations_out_of_bounds_are_refused_when_they_are_given<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let relay = || Relay::builder(shop.ledger.clone());
    let memory = Memory::new;
    for (option, relay) in [
        ("lease", relay().lease(Duration::MAX)),
        ("poll", relay().poll(Duration::MAX)),
        ("linger", relay().linger(Duration::MAX)),
        ("publish_timeout", relay().publish_timeout(Duration::MAX)),
        ("publish_timeout", relay().publish_timeout(Duration::ZERO)),
        ("grace", relay().grace(Duration::MAX)),
        ("keep_published", relay().keep_published(Duration::MAX)),
    ] {
        let built = relay.route("*", memory()).build();
        assert!(is_refused(built.as_ref().err()), "{option}: {built:?}");
    }
    let forever = Route::to(memory()).backoff(Duration::MAX, Duration::MAX);
    let built = relay().route("*", forever).build();
    assert!(is_refused(built.as_ref().err()), "backoff: {built:?}");
    let ledger = || Ledger::builder(shop.db.pool().clone());
    for (option, ledger) in [
        ("retention", ledger().retention(Duration::MAX)),
        ("wait", ledger().wait(Duration::MAX)),
        (
            "unknown_commit_bound",
            ledger().unknown_commit_bound(Duration::MAX),
        ),
    ] {
        let built = ledger.build();
        assert!(is_refused(built.as_ref().err()), "{option}: {built:?}");
    }
    let key = || Key::new("bounds", &[&uuid()]).expect("a key");
    for (option, call) in [
        ("wait", shop.ledger.call(key()).wait(Duration::MAX)),
        (
            "retention",
            shop.ledger.call(key()).retention(Duration::MAX),
        ),
        (
            "retention",
            shop.ledger.call(key()).retention(Duration::ZERO),
        ),
    ] {
        let answer: Result<_, Failure<Error>> =
            call.run(async |_: &mut DB::Connection| Ok(())).await;
        assert!(failed(&answer), "{option}: {answer:?}");
    }
    let delayed = Emit::new(()).event_after(Duration::MAX, Numbered::of("ada", 1));
    let call = shop.ledger.call(key());
    let answer: Result<_, Failure<Error>> = call
        .run_with_events(async |_: &mut DB::Connection| Ok(delayed))
        .await;
    assert!(failed(&answer), "event_after: {answer:?}");
}

fn is_refused(error: Option<&Error>) -> bool {
    error.is_some_and(|error| matches!(error.kind(), ErrorKind::Settings(_)))
}

fn failed<T>(answer: &Result<T, Failure<Error>>) -> bool {
    match answer {
        Err(Failure::Toolkit(error)) => is_refused(Some(error)),
        _ => false,
    }
}

/// A ledger whose database can fall silent.
fn behind_a_proxy<DB: ShopDb>(shop: &Shop<DB>) -> (Proxy, Ledger<DB>) {
    let proxy = shop.db.proxy();
    let ledger = Ledger::new(shop.db.pool_with(10, Some(&proxy)));
    (proxy, ledger)
}

async fn a_statement_that_is_never_answered_is_given_up<DB: ShopDb>(db: TestDb<DB>) {
    // A word of each kind of statement, as it is on the wire when it is prepared or sent as text.
    const WORDS: [&str; 4] = [
        "effectively_migrations",
        "effectively_relays",
        "effectively_leases",
        "effectively_outbox",
    ];
    let shop = Shop::open(db).await;
    let mut relays = Vec::new();
    for word in WORDS {
        let (proxy, ledger) = behind_a_proxy(&shop);
        // The connection first: the statement is what is not answered.
        drop(ledger.pool().acquire().await.expect("a connection"));
        proxy.stall_at(word.as_bytes());
        let sink = Memory::new();
        let relay = Running::start(brisk(ledger).route("numbers", sink.clone()));
        eventually(SOON, async || !proxy.is_armed()).await;
        relays.push((word, sink, relay, proxy));
    }
    // They share the partitions: each has to publish some of them in the end.
    eventually(SOON, async || {
        shop.numbers(&["ada", "bob", "cy"], 0..1).await;
        shop.numbers(&[&uuid(), &uuid(), &uuid()], 0..1).await;
        let silent = |(_, sink, ..): &&(_, Memory, _, _)| sink.is_empty();
        match relays.iter().find(silent) {
            None => Ok(()),
            Some((word, ..)) => Err(word),
        }
    })
    .await;
}

async fn a_relay_ends_although_the_database_is_silent<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let (proxy, ledger) = behind_a_proxy(&shop);
    let sink = Memory::new();
    let relay = Running::start(brisk(ledger).route("numbers", sink.clone()));
    shop.numbers(&["ada"], 0..1).await;
    shop.drained().await;
    proxy.black_hole(true);
    let ended = timeout(SOON, relay.stop()).await;
    ended.expect("a relay that ends");
}
