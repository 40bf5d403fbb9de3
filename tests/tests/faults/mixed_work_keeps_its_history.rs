//! I1 to I6 and I9 at once: four processes with common keys and a relay each, bodies that fail, panic and end their transaction,
//! connections that break, processes that are killed and replaced. The history of it all must be one that a correct system can have.

use effectively_tests::{TestDb, Worker, on_every_database};

use crate::history::{End, History};
use crate::mixed_work::{Shift, history_of, judge, open, work};
use crate::shop::ShopDb;

on_every_database!(four_processes_under_faults_keep_every_promise);

async fn four_processes_under_faults_keep_every_promise<DB: ShopDb>(db: TestDb<DB>) {
    if let Some(shift) = Worker::input::<Shift>() {
        return work(db, shift, true).await;
    }
    let db = open(db).await;
    let history = judge(history_of(std::slice::from_ref(&db)).await, &db).await;
    // With MySQL, a body's ROLLBACK is followed by a transaction that the toolkit rolls back: the key is free.
    let interrupts = DB::NAME != "MySQL";
    assert_enough(&history, if interrupts { 3 } else { 0 });
}

/// C9: a run in which nothing happened proves nothing.
fn assert_enough(history: &History, interrupted: usize) {
    let ended = |is_such: fn(&End) -> bool| history.count(|end| end.is_some_and(is_such));
    let failed = |why: &str| history.count(|end| *end == Some(&End::Failed(why.into())));
    let [received, again] = history.received;
    let counts = [
        ("keys", history.keys().len(), 30),
        ("ran", ended(|end| matches!(end, End::Ran(_))), 20),
        ("replayed", ended(|end| matches!(end, End::Replayed(_))), 80),
        ("gave up", failed("gave up"), 25),
        ("panicked", failed("panicked"), 10),
        ("cut off", history.count(|end| end.is_none()), 6),
        ("broken", failed("broken"), 5),
        ("transaction lost", failed("TransactionLost"), 3),
        ("interrupted", failed("Interrupted"), interrupted),
        ("received", received, 40),
        ("received again", again, 1),
    ];
    let enough = counts.iter().all(|(_, seen, needed)| seen >= needed);
    assert!(enough, "too little happened: {counts:?}");
    Worker::say(format_args!("{counts:?}"));
}
