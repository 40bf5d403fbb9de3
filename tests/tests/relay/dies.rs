//! Relays that are killed: nothing is lost, the order holds, and an event that kills its relay is set aside.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use effectively::fault::{self, Action};
use effectively::sink::{Delivery, Memory, Sink, Unavailable};
use effectively::{Emit, Envelope, LeaseState, RelayBuilder};
use effectively_tests::{TestDb, Worker, eventually, on_every_database};
use serde::{Deserialize, Serialize};

use crate::collector::{Collected, Collector, Copy};
use crate::shop::{Numbered, Running, SOON, Shop, ShopDb, brisk, emit, in_order};

on_every_database!(
    an_event_that_kills_its_relay_becomes_a_dead_letter,
    relays_killed_between_publishing_and_settling_lose_nothing,
    a_stopped_relay_settles_nothing_when_it_goes_on,
    deaths_while_a_sink_is_down_bury_nothing,
    deaths_while_a_sink_takes_over_bury_nothing,
    deaths_after_the_sink_has_answered_bury_nothing,
    ends_that_cut_a_sink_short_bury_nothing,
);

/// Ends the process over one event, and tells the parent of all others.
struct Deadly {
    sink: Memory,
}

impl Sink for Deadly {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let deadly = |event: &Envelope| {
            event.partition_key.as_deref() == Some("bob") && Numbered::from(event).number == 3
        };
        if batch.iter().any(deadly) {
            std::process::abort();
        }
        self.sink.publish(batch).await
    }

    fn keeps_order(&self) -> bool {
        true
    }
}

async fn an_event_that_kills_its_relay_becomes_a_dead_letter<DB: ShopDb>(db: TestDb<DB>) {
    if Worker::input::<()>().is_some() {
        let shop = Shop::opened(db);
        let sink = Deadly {
            sink: Memory::new(),
        };
        let relay = brisk(shop.ledger.clone())
            .route("numbers", sink)
            .max_crashes(2);
        let relay = relay.build().expect("a relay");
        let ended = relay.run(async {
            while shop.pending().await > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        ended.await.expect("an end in order");
        Worker::say("drained");
        return;
    }
    let shop = Shop::open(db).await;
    shop.numbers(&["ada", "bob", "cy"], 0..10).await;
    let mut deaths = 0;
    loop {
        let mut worker = shop.db.worker(&());
        if worker.exit().await.success() {
            break;
        }
        deaths += 1;
        assert!(deaths < 12, "it never ends");
    }
    assert_eq!(shop.pending().await, 0);
    let letters = shop.ledger.outbox().dead_letters(0, 10).await;
    let letters = letters.expect("the dead letters");
    let [letter] = &letters[..] else {
        panic!("{} dead letters after {deaths} deaths", letters.len());
    };
    let event: Numbered = serde_json::from_slice(&letter.data).expect("its body");
    assert_eq!((event.key.as_str(), event.number), ("bob", 3));
    assert_eq!(
        letter.error,
        "a relay died 2 times while it published this event"
    );
}

/// A relay in a process of its own that publishes to the parent.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    parent: SocketAddr,
    worker: usize,
    /// Whether its first batch is never settled.
    stalls: bool,
}

impl Job {
    async fn run<DB: ShopDb>(self, db: TestDb<DB>) {
        if self.stalls {
            fault::arm(Some((fault::AFTER_PUBLISH, Action::Stall)));
        }
        let sink = Collected::by(self.parent, self.worker).await;
        let relay = brisk(Shop::opened(db).ledger).route("numbers", sink);
        let relay = relay.batch(64).build().expect("a relay");
        let _ = relay.run(std::future::pending()).await;
    }
}

const RELAYS: usize = 4;
const KEYS: u64 = 1000;

async fn relays_killed_between_publishing_and_settling_lose_nothing<DB: ShopDb>(db: TestDb<DB>) {
    if let Some(job) = Worker::input::<Job>() {
        return job.run(db).await;
    }
    let kills = if DB::NAME == "PostgreSQL" { 200 } else { 40 };
    let shop = Shop::open(db).await;
    let mut collector = Collector::open(true).await;
    let parent = collector.address;
    let start = |worker| {
        let job = Job {
            parent,
            worker,
            stalls: true,
        };
        (worker, shop.db.worker(&job))
    };
    let mut relays: HashMap<usize, Worker> = (0..RELAYS).map(start).collect();
    let (ledger, enough) = (shop.elsewhere(), Arc::new(AtomicBool::new(false)));
    let until = Arc::clone(&enough);
    let emitting = tokio::spawn(async move {
        let mut emitted = 0;
        while !until.load(Ordering::SeqCst) {
            let numbers = emitted..emitted + 100;
            let event = |number| Numbered::of(&format!("key {}", number % KEYS), number / KEYS);
            emit(&ledger, Emit::new(()).events(numbers.map(event))).await;
            emitted += 100;
            // As much as is published meanwhile, so that there always is something.
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        emitted
    });
    for kill in 0..kills {
        // The first batch of each relay stalls when it is published and not settled: that is the moment.
        let killed = loop {
            let (worker, _) = collector.batches.recv().await.expect("a batch");
            if relays.contains_key(&worker) {
                break worker;
            }
        };
        relays.remove(&killed).expect("a relay").kill();
        let (next, relay) = start(RELAYS + kill);
        relays.insert(next, relay);
    }
    enough.store(true, Ordering::SeqCst);
    let emitted = emitting.await.expect("all emitted");
    drop(relays);
    let last = Collected::by(parent, usize::MAX).await;
    let last = Running::start(brisk(shop.elsewhere()).route("numbers", last));
    eventually(SOON * 4, async || shop.pending().await == 0).await;
    last.stop().await;
    let copies = collector.copies();
    assert_all_in_order(&copies, emitted);
    let again = copies.len() as u64 - emitted;
    Worker::say(format_args!(
        "{kills} kills, {emitted} events, {again} published again"
    ));
    assert!(again >= kills as u64 / 2, "the kills met nothing: {again}");
}

/// Each event is there, under one id, and first copies are in the order of their key.
fn assert_all_in_order(copies: &[Copy], emitted: u64) {
    let mut ids: HashMap<&str, (&str, u64)> = HashMap::new();
    let mut of_key: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for copy in copies {
        let event = (copy.event.key.as_str(), copy.event.number);
        match ids.insert(&copy.id, event) {
            None => of_key.entry(event.0).or_default().push(event.1),
            Some(before) => assert_eq!(before, event, "one id for two events"),
        }
    }
    let first: u64 = of_key.values().map(|numbers| numbers.len() as u64).sum();
    assert_eq!(first, emitted, "events or ids were lost or made up");
    for (key, numbers) in of_key {
        assert!(numbers.is_sorted(), "{key} arrived as {numbers:?}");
        assert_eq!(
            numbers.len() as u64,
            numbers.last().map_or(0, |last| last + 1),
            "{key}"
        );
    }
}

async fn a_stopped_relay_settles_nothing_when_it_goes_on<DB: ShopDb>(db: TestDb<DB>) {
    if let Some(job) = Worker::input::<Job>() {
        return job.run(db).await;
    }
    let shop = Shop::open(db).await;
    let mut collector = Collector::open(false).await;
    let stopped = shop.db.worker(&Job {
        parent: collector.address,
        worker: 0,
        stalls: false,
    });
    shop.numbers(&["ada"], 0..5).await;
    // The batch is noted, and not answered while the relay stands still.
    let (_, answer) = collector.batches.recv().await.expect("a batch");
    stopped.pause();
    let leases = async || shop.ledger.outbox().leases().await.expect("the leases");
    let stale = leases().await.iter().find_map(|lease| lease.holder);
    let stale = stale.expect("the leases of the relay that stands still");
    let down = Memory::new().judged_by(|_| Some(Delivery::unavailable("no route to host")));
    let other = Running::start(brisk(shop.elsewhere()).route("numbers", down));
    let taken = async || {
        let others = |lease: &LeaseState| lease.holder.is_some_and(|holder| holder != stale);
        leases().await.iter().all(others)
    };
    eventually(SOON, taken).await;
    let _ = answer.send(());
    stopped.resume();
    // It publishes nothing more, and settles nothing of what it published: the events are another's now.
    let settled = tokio::time::timeout(Duration::from_secs(2), async {
        eventually(SOON, async || shop.pending().await < 5).await;
    });
    assert!(settled.await.is_err(), "the stale relay settled");
    other.stop().await;
    collector.answer_at_once();
    drop(stopped);
    let sink = Collected::by(collector.address, 1).await;
    let next = Running::start(brisk(shop.elsewhere()).route("numbers", sink));
    shop.drained().await;
    next.stop().await;
    assert_all_in_order(&collector.copies(), 5);
}

/// A relay that comes after dead ones: it publishes one event at a time.
fn after_deaths<DB: ShopDb>(shop: &Shop<DB>, sink: impl Sink) -> RelayBuilder<DB> {
    let relay = brisk(shop.elsewhere()).route("numbers", sink);
    relay.max_crashes(1).grace(Duration::from_millis(50))
}

/// Waits until nobody holds a lease, as after a death.
async fn leases_end<DB: ShopDb>(shop: &Shop<DB>) {
    let held = |lease: &LeaseState| lease.holder.is_some();
    eventually(SOON, async || {
        !shop
            .ledger
            .outbox()
            .leases()
            .await
            .expect("the leases")
            .iter()
            .any(held)
    })
    .await;
}

async fn assert_all_is_published_and_nothing_buried<DB: ShopDb>(shop: &Shop<DB>) {
    let sink = Memory::new();
    let last = Running::start(after_deaths(shop, sink.clone()));
    shop.drained().await;
    last.stop().await;
    let letters = shop.ledger.outbox().dead_letters(0, 10).await;
    assert_eq!(letters.expect("the dead letters"), []);
    assert_eq!(in_order(&sink.published())["ada"], [0, 1, 2]);
}

async fn deaths_while_a_sink_is_down_bury_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..3).await;
    for _ in 0..5 {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let down = Memory::new().judged_by(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Some(Delivery::unavailable("the broker is down"))
        });
        let relay = Running::start(after_deaths(&shop, down));
        // It has its answer and waits for the broker.
        eventually(SOON, async || asked.load(Ordering::SeqCst) >= 2).await;
        let noted = "select count(*) from effectively_outbox where suspected_by is not null";
        eventually(SOON, async || shop.db.number(noted).await == 0).await;
        drop(relay);
        leases_end(&shop).await;
    }
    assert_all_is_published_and_nothing_buried(&shop).await;
}

/// Its `assigned` never ends.
struct TakingOver(Arc<AtomicUsize>);

impl Sink for TakingOver {
    async fn publish(&self, _: &[Envelope]) -> Vec<Delivery> {
        panic!("nothing is assigned yet")
    }

    async fn assigned(&self, _: u16) -> Result<Vec<i64>, Unavailable> {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
}

async fn deaths_while_a_sink_takes_over_bury_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..3).await;
    for _ in 0..5 {
        let asked = Arc::new(AtomicUsize::new(0));
        let relay = Running::start(after_deaths(&shop, TakingOver(Arc::clone(&asked))));
        eventually(SOON, async || asked.load(Ordering::SeqCst) >= 1).await;
        drop(relay);
        leases_end(&shop).await;
    }
    assert_all_is_published_and_nothing_buried(&shop).await;
}

async fn deaths_after_the_sink_has_answered_bury_nothing<DB: ShopDb>(db: TestDb<DB>) {
    if let Some(job) = Worker::input::<Job>() {
        return job.run(db).await;
    }
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..3).await;
    let mut collector = Collector::open(true).await;
    for worker in 0..5 {
        let job = Job {
            parent: collector.address,
            worker,
            stalls: true,
        };
        let mut relay = shop.db.worker(&job);
        collector.batches.recv().await.expect("a batch");
        let noted = "select count(*) from effectively_outbox where suspected_by is not null";
        eventually(SOON, async || shop.db.number(noted).await == 0).await;
        relay.kill();
        leases_end(&shop).await;
    }
    assert_all_is_published_and_nothing_buried(&shop).await;
}

/// It never answers.
struct Silent(Arc<AtomicUsize>);

impl Sink for Silent {
    async fn publish(&self, _: &[Envelope]) -> Vec<Delivery> {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
}

async fn ends_that_cut_a_sink_short_bury_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.numbers(&["ada"], 0..3).await;
    // One death, so that all that follow publish one event at a time.
    let asked = Arc::new(AtomicUsize::new(0));
    let dies = Running::start(after_deaths(&shop, Silent(Arc::clone(&asked))));
    eventually(SOON, async || asked.load(Ordering::SeqCst) >= 1).await;
    drop(dies);
    leases_end(&shop).await;
    for _ in 0..4 {
        let asked = Arc::new(AtomicUsize::new(0));
        let relay = Running::start(after_deaths(&shop, Silent(Arc::clone(&asked))));
        eventually(SOON, async || asked.load(Ordering::SeqCst) >= 1).await;
        relay.stop().await;
    }
    assert_all_is_published_and_nothing_buried(&shop).await;
}
