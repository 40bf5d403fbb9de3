//! I1, I2, I6 and I9 at once: four processes with common keys, bodies that fail and panic, connections that break, processes that
//! are killed and replaced. The history of it all must be one that a correct system can have.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use effectively::{ErrorKind, Failure, Ledger};
use effectively_tests::{TestDb, Worker, eventually, on_every_database};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::history::{End, History, Line};
use crate::marks::{Answer, BOUND, Body, mark_of, open, order_as, settled};
use crate::shop::ShopDb;

/// The last shift of a process is worked to its end, the others are killed in the middle.
const SHIFTS: u64 = 4;
const TASKS: u64 = 3;
const CALLS: u64 = 45;

on_every_database!(four_processes_under_faults_keep_every_promise);

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Shift {
    process: u64,
    number: u64,
}

async fn four_processes_under_faults_keep_every_promise<DB: ShopDb>(db: TestDb<DB>) {
    if let Some(shift) = Worker::input::<Shift>() {
        return work(db, shift).await;
    }
    let db = open(db).await;
    let [a, b, c, d] = [0, 1, 2, 3].map(|process| watch(&db, process));
    let (a, b, c, d) = tokio::join!(a, b, c, d);
    let mut history = History::default();
    [a, b, c, d]
        .into_iter()
        .flatten()
        .for_each(|line| history.add(line));

    // The faults have stopped: every key ends.
    let ledger = Ledger::new(db.pool().clone());
    for key in history.keys() {
        eventually(BOUND, async || {
            let mark = mark_of(&key);
            history.add(began(&mark));
            let (line, ended) = ended(&mark, Ok(order_as(&ledger, &mark, Body::Returns).await));
            history.add(line);
            matches!(ended, End::Ran(_) | End::Replayed(_))
        })
        .await;
    }
    let book = settled(&db).await;
    history.check(&book).expect("a history that can be");
    assert_eq!(
        book.orders.len(),
        history.keys().len(),
        "every key has its order"
    );
    assert_enough(&history, DB::VARIABLE.is_some());
}

/// C9: a run in which nothing happened proves nothing.
fn assert_enough(history: &History, network: bool) {
    let ended = |is_such: fn(&End) -> bool| history.count(|end| end.is_some_and(is_such));
    let failed = |why: &str| history.count(|end| *end == Some(&End::Failed(why.into())));
    let counts = [
        ("keys", history.keys().len(), 30),
        ("ran", ended(|end| matches!(end, End::Ran(_))), 20),
        ("replayed", ended(|end| matches!(end, End::Replayed(_))), 80),
        ("gave up", failed("gave up"), 25),
        ("panicked", failed("panicked"), 10),
        ("cut off", history.count(|end| end.is_none()), 6),
        ("broken", failed("broken"), if network { 5 } else { 0 }),
    ];
    let enough = counts.iter().all(|(_, seen, needed)| seen >= needed);
    assert!(enough, "too little happened: {counts:?}");
    Worker::say(format_args!("{counts:?}"));
}

/// The life of one process and of those that replace it.
async fn watch<DB: ShopDb>(db: &TestDb<DB>, process: u64) -> Vec<Line> {
    let mut lines = Vec::new();
    for number in 0..SHIFTS {
        let mut worker = db.worker(&Shift { process, number });
        let mut left = 30 + Dice(process * SHIFTS + number).next(120);
        loop {
            let said = worker.hear().await;
            if said == "done" {
                break;
            }
            lines.push(line(&said));
            left = left.saturating_sub(1);
            if left == 0 && number + 1 < SHIFTS {
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

async fn work<DB: ShopDb>(db: TestDb<DB>, shift: Shift) {
    let proxy = DB::VARIABLE.is_some().then(|| db.proxy());
    let ledger = Ledger::builder(db.pool_with(4, proxy.as_ref()))
        .unknown_commit_bound(Duration::from_secs(2))
        .build()
        .expect("a ledger");
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
    let breaking = tokio::spawn(async move {
        let mut dice = Dice(shift.process);
        // So many calls after the last time, in the middle of the others: by the clock, a slow machine would never answer one.
        loop {
            for _ in 0..8 + dice.next(8) {
                ends_of_calls.recv().await;
            }
            tokio::time::sleep(Duration::from_millis(dice.next(10))).await;
            if let Some(proxy) = &proxy {
                proxy.sever();
            }
        }
    });
    tasks.join_all().await;
    breaking.abort();
    Worker::say("done");
}

async fn call_once<DB: ShopDb>(ledger: &Ledger<DB>, key: &str, body: Body) {
    let mark = mark_of(key);
    say(&began(&mark));
    let call = tokio::spawn({
        let (ledger, mark) = (ledger.clone(), mark.clone());
        async move { order_as(&ledger, &mark, body).await }
    });
    say(&ended(&mark, call.await.map_err(drop)).0);
}

fn body(dice: &mut Dice) -> Body {
    match dice.next(20) {
        0..3 => Body::Returns,
        3..6 => Body::Works(Duration::from_millis(10)),
        6..16 => Body::GivesUp,
        _ => Body::Panics,
    }
}

fn began(mark: &str) -> Line {
    Line::Began {
        mark: mark.to_owned(),
        at: now(),
    }
}

fn ended(mark: &str, answer: Result<Answer, ()>) -> (Line, End) {
    let end = match answer {
        Err(()) => End::Failed("panicked".into()),
        Ok(Ok(outcome)) => {
            let replay = outcome.is_replay();
            let answer = outcome.into_result().expect("a mark");
            if replay {
                End::Replayed(answer)
            } else {
                End::Ran(answer)
            }
        }
        Ok(Err(Failure::Handler(crate::shop::ShopError::GaveUp))) => End::Failed("gave up".into()),
        Ok(Err(Failure::Handler(_))) => End::Failed("broken".into()),
        Ok(Err(Failure::Toolkit(error))) => match error.kind() {
            ErrorKind::CommitUnknown => End::Unknown,
            ErrorKind::Unavailable | ErrorKind::NotCommitted => End::Failed("broken".into()),
            other => End::Failed(format!("{other:?}")),
        },
    };
    let line = Line::Ended {
        mark: mark.to_owned(),
        at: now(),
        end: end.clone(),
    };
    (line, end)
}

fn say(line: &Line) {
    Worker::say(serde_json::to_string(line).expect("a line as JSON"));
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
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
