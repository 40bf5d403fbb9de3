//! A checker that never finds anything proves nothing: with a bug planted in its processes, the same work has a history that no
//! correct system can have.

use effectively::fault::{Bug, plant};
use effectively_tests::{TestDb, Worker, on_every_database};

use crate::marks::{Book, open};
use crate::mixed_work::{Shift, history_of, work};
use crate::shop::ShopDb;

on_every_database!(
    an_answer_before_the_commit_is_found_out,
    a_missing_fence_is_found_out,
    a_claim_that_other_processes_do_not_see_is_found_out,
);

const LOST: &str = "it stayed: false";

async fn an_answer_before_the_commit_is_found_out<DB: ShopDb>(db: TestDb<DB>) {
    is_found_out(db, Bug::AckBeforeCommit, LOST).await;
}

async fn a_missing_fence_is_found_out<DB: ShopDb>(db: TestDb<DB>) {
    is_found_out(db, Bug::NoFence, LOST).await;
}

async fn a_claim_that_other_processes_do_not_see_is_found_out<DB: ShopDb>(db: TestDb<DB>) {
    is_found_out(db, Bug::ClaimOfOneProcess, "doubles: true").await;
}

async fn is_found_out<DB: ShopDb>(db: TestDb<DB>, bug: Bug, as_what: &str) {
    if let Some(shift) = Worker::input::<Shift>() {
        plant(bug);
        return work(db, shift).await;
    }
    let db = open(db).await;
    let history = history_of(&db).await;
    let found = history.check(&Book::of(&db).await);
    assert!(
        found.as_ref().is_err_and(|found| found.contains(as_what)),
        "{bug:?} was taken for {found:?}"
    );
}
