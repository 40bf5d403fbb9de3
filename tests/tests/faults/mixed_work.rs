//! Four processes with common keys and a relay each, bodies that fail, panic and end their transaction, connections that break,
//! processes that are killed and replaced.

use std::future::pending;
use std::time::Duration;

use effectively::Ledger;
use effectively::fault::{AFTER_PUBLISH, Action, arm};
use effectively_tests::{TestDb, Worker, eventually};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::history::{End, History, Line, began, ended};
use crate::marks::{Answer, BOUND, Body, key_of, mark_of};
use crate::shop::{ShopDb, insert, shop_key};
use crate::{deliveries, marks, payments};

/// The last shift of a process is worked to its end, the others are killed in the middle.
const SHIFTS: u64 = 4;
const TASKS: u64 = 3;
const CALLS: u64 = 45;
/// Where the algorithm fails.
const POINTS: [&str; 5] = [
    "before_claim",
    "after_claim",
    "before_fence",
    "before_commit",
    AFTER_PUBLISH,
];

#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Shift {
    process: u64,
    number: u64,
}

impl Shift {
    fn is_last(&self) -> bool {
        self.number + 1 == SHIFTS
    }
}

/// A database with all tables of the work.
pub async fn open<DB: ShopDb>(db: TestDb<DB>) -> TestDb<DB> {
    let db = marks::open(db).await;
    deliveries::open(&db).await;
    payments::open(&db).await;
    db
}

/// The call of all processes: an order, its payment, what the body does then, and events.
pub async fn order<DB: ShopDb>(ledger: &Ledger<DB>, mark: &str, body: Body) -> Answer {
    ledger
        .call(shop_key(key_of(mark)))
        .run_with_events(async |tx: &mut DB::Connection| {
            insert::<DB>(tx, mark).await?;
            payments::pay::<DB>(tx, mark).await?;
            body.run::<DB>(tx).await?;
            Ok(deliveries::emission(mark))
        })
        .await
}

/// What the processes did until the last of them was done and an operator released the keys whose body had ended the
/// transaction. Each process is this test, which must call [`work`].
///
/// `nodes`: the database by way of each server that has it. The processes take turns with them.
pub async fn history_of<DB: ShopDb>(nodes: &[TestDb<DB>]) -> History {
    let watched = |process| watch(&nodes[process as usize % nodes.len()], process);
    let [a, b, c, d] = [0, 1, 2, 3].map(watched);
    let (a, b, c, d) = tokio::join!(a, b, c, d);
    let mut history = History::default();
    for line in [a, b, c, d].into_iter().flatten() {
        history.add(line);
    }
    for db in nodes {
        eventually(BOUND, async || db.busy_sessions().await == 0).await;
    }
    let ledger = Ledger::new(nodes[0].pool().clone());
    for interrupted in ledger.interrupted().await.expect("the interrupted keys") {
        let released = ledger.release_interrupted(interrupted.id).await;
        assert!(released.expect("a release"), "nobody else releases it");
    }
    history
}

/// The life of one process and of those that replace it.
async fn watch<DB: ShopDb>(db: &TestDb<DB>, process: u64) -> Vec<Line> {
    let mut lines = Vec::new();
    for number in 0..SHIFTS {
        let shift = Shift { process, number };
        let mut worker = db.worker(&shift);
        let mut left = 30 + Dice(process * SHIFTS + number).next(120);
        loop {
            let said = worker.hear().await;
            if said == "done" {
                break;
            }
            lines.push(line(&said));
            left = left.saturating_sub(1);
            if left == 0 && !shift.is_last() {
                worker.kill();
                let rest = worker.last_words().await;
                lines.extend(rest.iter().filter(|said| *said != "done").map(line));
                break;
            }
        }
    }
    lines
}

fn line(said: impl AsRef<str>) -> Line {
    serde_json::from_str(said.as_ref()).expect("a line of the history")
}

/// `drains`: the last shift ends when the outbox is empty, and not before.
pub async fn work<DB: ShopDb>(db: TestDb<DB>, shift: Shift, drains: bool) {
    let proxy = DB::VARIABLE.is_some().then(|| db.proxy());
    let ledger = Ledger::builder(db.pool_with(4, proxy.as_ref()))
        .unknown_commit_bound(Duration::from_secs(2))
        .build()
        .expect("a ledger");
    let relay = tokio::spawn(
        deliveries::relay(&ledger, |again| say(&Line::Received { again })).run(pending()),
    );
    let mut tasks = JoinSet::new();
    let (end_of_call, mut ends_of_calls) = tokio::sync::mpsc::unbounded_channel();
    for task in 0..TASKS {
        let (ledger, end_of_call, seed) = (
            ledger.clone(),
            end_of_call.clone(),
            (shift.process * SHIFTS + shift.number) * TASKS + task,
        );
        tasks.spawn(async move {
            let mut dice = Dice(seed);
            for call in 0..CALLS {
                // All processes move along the same keys, so that they meet.
                let key = format!("k{}", shift.number * 12 + call / 3 + dice.next(4));
                call_once(&ledger, &key, body(&mut dice)).await;
                let _ = end_of_call.send(());
            }
        });
    }
    let breaking = async {
        let mut dice = Dice(shift.process);
        // So many calls after the last time, in the middle of the others: by the clock, a slow machine would never answer one.
        loop {
            for _ in 0..8 + dice.next(8) {
                ends_of_calls.recv().await;
            }
            tokio::time::sleep(Duration::from_millis(dice.next(10))).await;
            if let Some(proxy) = &proxy
                && dice.next(2) == 0
            {
                proxy.sever();
            } else {
                arm(Some((POINTS[dice.next(5) as usize], Action::Error)));
            }
        }
    };
    tokio::select! {
        () = breaking => {}
        // The last fault: some events come again.
        _ = tasks.join_all() => arm(Some((AFTER_PUBLISH, Action::Error))),
    }
    if drains && shift.is_last() {
        // A connection that broke may be found out only now.
        let pending = async || ledger.outbox().pending().await.unwrap_or(1);
        eventually(deliveries::DRAINED, async || pending().await == 0).await;
    }
    relay.abort();
    Worker::say("done");
}

async fn call_once<DB: ShopDb>(ledger: &Ledger<DB>, key: &str, body: Body) {
    let mark = mark_of(key);
    say(&began(&mark));
    let call = tokio::spawn({
        let (ledger, mark) = (ledger.clone(), mark.clone());
        async move { order(&ledger, &mark, body).await }
    });
    say(&ended(&mark, call.await.map_err(drop)).0);
}

fn body(dice: &mut Dice) -> Body {
    match dice.next(20) {
        0..3 => Body::Returns,
        3..6 => Body::Works(Duration::from_millis(10)),
        6..15 => Body::GivesUp,
        15 => Body::Runs("rollback"),
        _ => Body::Panics,
    }
}

fn say(line: &Line) {
    Worker::say(serde_json::to_string(line).expect("a line as JSON"));
}

/// The same throws each time.
struct Dice(u64);

impl Dice {
    fn next(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// The faults have stopped: every key ends, and all that was promised of them holds. `db`: the database of the history.
pub async fn judge<DB: ShopDb>(mut history: History, db: &TestDb<DB>) -> History {
    let ledger = Ledger::new(db.pool().clone());
    for key in history.keys() {
        eventually(BOUND, async || {
            let mark = mark_of(&key);
            history.add(began(&mark));
            let (line, ended) = ended(&mark, Ok(order(&ledger, &mark, Body::Returns).await));
            history.add(line);
            matches!(ended, End::Ran(_) | End::Replayed(_))
        })
        .await;
    }
    let book = deliveries::delivered(db).await;
    history.check(&book).expect("a history that can be");
    assert!(payments::are_of(db, book.orders.len()).await);
    assert_eq!(
        book.orders.len(),
        history.keys().len(),
        "every key has its order"
    );
    history
}
