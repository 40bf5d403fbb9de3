//! A relay whose lease is another's, or is its own under another epoch, changes nothing by it. It notices, and goes on with what it
//! has now.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use effectively::sink::{Delivery, Memory, Sink};
use effectively::{Envelope, Error, Ledger, Relay, RelayBuilder};
use effectively_tests::{TestDb, eventually, on_every_database};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::marks::{Body, answered, open, order};
use crate::shop::{SOON, ShopDb, in_the_past};

on_every_database!(
    a_relay_goes_on_under_the_new_epoch_of_its_leases,
    a_relay_extends_and_gives_up_nothing_that_another_holds,
    an_event_whose_lease_is_lost_stays_as_it_is,
);

const LEASE: Duration = Duration::from_secs(1);

async fn a_relay_goes_on_under_the_new_epoch_of_its_leases<DB: ShopDb>(db: TestDb<DB>) {
    assert_eq!(published_under_a_new_epoch(db).await, Ok(()));
}

/// What a relay does with events after its leases have ended and come back to it, as when the answer to an acquisition was lost.
pub async fn published_under_a_new_epoch<DB: ShopDb>(db: TestDb<DB>) -> Result<(), String> {
    let db = open(db).await;
    let ledger = Ledger::new(db.pool().clone());
    let sink = Memory::new();
    let relay = Running::start(brisk(&ledger).route("orders", sink.clone()));
    all_are_held(&db).await;
    // More than once, since a batch may just begin when the relay notices, or not.
    for round in 0..5 {
        db.execute("update effectively_leases set epoch = epoch + 1")
            .await;
        answered(order(&ledger, &format!("{round}"), Body::Returns).await);
        let settled = tokio::time::timeout(LEASE * 10, async {
            while ledger.outbox().pending().await.expect("a count") > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if settled.await.is_err() {
            let published = sink.len();
            return Err(format!(
                "round {round}: {published} published, never settled"
            ));
        }
    }
    relay.stop().await;
    Ok(())
}

async fn a_relay_extends_and_gives_up_nothing_that_another_holds<DB: ShopDb>(db: TestDb<DB>) {
    let db = open(db).await;
    let ledger = Ledger::new(db.pool().clone());
    let relay = Running::start(brisk(&ledger).route("orders", Memory::new()));
    all_are_held(&db).await;
    db.execute(&format!(
        "update effectively_leases set holder = {}, epoch = epoch + 1, expires_at = {}",
        other::<DB>(),
        in_an_hour::<DB>()
    ))
    .await;
    let columns = match DB::NAME {
        "SQLite" => "partition_no || ' ' || epoch || ' ' || expires_at || ' ' || deaths",
        _ => "concat_ws(' ', partition_no, epoch, expires_at, deaths)",
    };
    let theirs = format!(
        "select {columns} from effectively_leases where holder = {} order by partition_no",
        other::<DB>()
    );
    let before = db.texts(&theirs).await;
    assert_eq!(before.len(), 64);
    // Three turns of it: in each it says anew until when it is alive.
    db.execute("create table seen as select expires_at from effectively_relays")
        .await;
    eventually(SOON, async || {
        db.execute("insert into seen select expires_at from effectively_relays")
            .await;
        let turns = "select count(distinct expires_at) from seen";
        db.number(turns).await > 3
    })
    .await;
    assert!(db.texts(&theirs).await == before, "extended or taken");
    relay.stop().await;
    assert!(db.texts(&theirs).await == before, "given up");
}

/// Whatever the sink has said, and in whatever way the lease was lost.
async fn an_event_whose_lease_is_lost_stays_as_it_is<DB: ShopDb>(db: TestDb<DB>) {
    let db = open(db).await;
    let ledger = Ledger::new(db.pool().clone());
    let verdicts: [fn() -> Delivery; 3] = [
        || Delivery::Published,
        || Delivery::rejected("not yet"),
        || Delivery::refused_for_good("never"),
    ];
    let (other, later) = (other::<DB>(), in_an_hour::<DB>());
    let ways = [
        "epoch = epoch + 1".to_owned(),
        format!("holder = {other}, expires_at = {later}"),
        format!("holder = {other}, epoch = epoch + 1, expires_at = {later}"),
        "holder = null".to_owned(),
        format!("expires_at = {}", in_the_past::<DB>()),
    ];
    for verdict in verdicts {
        for (number, lost) in ways.iter().enumerate() {
            let case = format!("{:?} after {lost}", verdict());
            let key = format!("{number} {:?}", verdict());
            answered(order(&ledger, &key, Body::Returns).await);
            let sink = Halting::new(verdict);
            let relay = Running::start(brisk(&ledger).route("orders", sink.clone()));
            let reached = tokio::time::timeout(SOON, sink.reached.notified());
            reached.await.expect("a batch under way");
            db.execute(&format!("update effectively_leases set {lost}"))
                .await;
            sink.go_on.store(true, Ordering::SeqCst);
            // It stops when its batch has come to its end.
            relay.stop().await;
            let as_it_was = "attempts = 0 and crashes = 0 and partition_no >= 0";
            let count = |from| format!("(select count(*) from effectively_{from})");
            let [as_it_was, dead, kept] = [
                &format!("outbox where {as_it_was}"),
                "dead_letters",
                "published",
            ]
            .map(count);
            let found = format!("select {as_it_was} * 100 + {dead} * 10 + {kept}");
            assert_eq!(db.number(&found).await, 100, "{case}");
            db.execute("delete from effectively_outbox").await;
            let free = "update effectively_leases set holder = null, deaths = 0";
            db.execute(free).await;
        }
    }
}

/// Gives its verdict once it may go on, and blocks its thread until then: no timer of the relay ends that. Later it is down.
#[derive(Clone)]
struct Halting {
    verdict: fn() -> Delivery,
    reached: Arc<Notify>,
    go_on: Arc<AtomicBool>,
    has_judged: Arc<AtomicBool>,
}

impl Halting {
    fn new(verdict: fn() -> Delivery) -> Self {
        Self {
            verdict,
            reached: Arc::default(),
            go_on: Arc::default(),
            has_judged: Arc::default(),
        }
    }
}

impl Sink for Halting {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        self.reached.notify_one();
        while !self.go_on.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let is_first = !self.has_judged.swap(true, Ordering::SeqCst);
        let verdict = |_: &Envelope| match is_first {
            true => (self.verdict)(),
            false => Delivery::unavailable("down"),
        };
        batch.iter().map(verdict).collect()
    }
}

fn brisk<DB: ShopDb>(ledger: &Ledger<DB>) -> RelayBuilder<DB> {
    let relay = Relay::builder(ledger.clone());
    relay.lease(LEASE).poll(Duration::from_millis(20))
}

/// A relay that runs in this process.
struct Running {
    task: JoinHandle<Result<(), Error>>,
    end: oneshot::Sender<()>,
}

impl Running {
    fn start<DB: ShopDb>(relay: RelayBuilder<DB>) -> Self {
        let relay = relay.build().expect("a relay");
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(relay.run(async { _ = ended.await }));
        Self { task, end }
    }

    async fn stop(self) {
        let _ = self.end.send(());
        let ended = self.task.await.expect("no panic");
        ended.expect("an end in order");
    }
}

async fn all_are_held<DB: ShopDb>(db: &TestDb<DB>) {
    let free = "select count(*) from effectively_leases where holder is null";
    eventually(SOON, async || db.number(free).await == 0).await;
}

/// Another relay.
pub fn other<DB: ShopDb>() -> &'static str {
    match DB::NAME {
        "PostgreSQL" => "'00112233-4455-6677-8899-aabbccddeeff'",
        _ => "x'00112233445566778899aabbccddeeff'",
    }
}

pub fn in_an_hour<DB: ShopDb>() -> &'static str {
    match DB::NAME {
        "PostgreSQL" => "now() + interval '1 hour'",
        "MySQL" => "utc_timestamp(6) + interval 1 hour",
        _ => "cast((julianday('now') - 2440587.5) * 86400000 as integer) + 3600000",
    }
}
