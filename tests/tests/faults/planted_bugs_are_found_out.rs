//! A checker that never finds anything proves nothing: with a bug planted in its processes, the same work has a history that no
//! correct system can have.

use effectively::fault::{Bug, plant};
use effectively_tests::{TestDb, Worker, on_every_database};

use crate::deliveries;
use crate::mixed_work::{Shift, history_of, open, work};
use crate::shop::ShopDb;

on_every_database!(
    an_answer_before_the_commit_is_found_out,
    a_missing_fence_is_found_out,
    a_claim_that_other_processes_do_not_see_is_found_out,
    a_relay_that_settles_what_was_not_taken_is_found_out,
);

/// A call was answered and has no effect; or an event was taken, and what its handler did is not there.
const LOST: [&str; 2] = ["it stayed: false", "torn: true"];
const DOUBLED: [&str; 1] = ["doubles: true"];

async fn an_answer_before_the_commit_is_found_out<DB: ShopDb>(db: TestDb<DB>) {
    is_found_out(db, Bug::AckBeforeCommit, LOST).await;
}

async fn a_missing_fence_is_found_out<DB: ShopDb>(db: TestDb<DB>) {
    is_found_out(db, Bug::NoFence, LOST).await;
}

async fn a_claim_that_other_processes_do_not_see_is_found_out<DB: ShopDb>(db: TestDb<DB>) {
    is_found_out(db, Bug::ClaimOfOneProcess, DOUBLED).await;
}

async fn a_relay_that_settles_what_was_not_taken_is_found_out<DB: ShopDb>(db: TestDb<DB>) {
    is_found_out(db, Bug::SettlesUnpublished, ["torn: true"]).await;
}

async fn is_found_out<DB: ShopDb>(
    db: TestDb<DB>,
    bug: Bug,
    as_what: impl IntoIterator<Item = &'static str>,
) {
    if let Some(shift) = Worker::input::<Shift>() {
        plant(bug);
        // With a bug it may never drain.
        return work(db, shift, false).await;
    }
    let db = open(db).await;
    let history = history_of(&db).await;
    let found = history.check(&deliveries::delivered(&db).await);
    let is_that = |found: &String| as_what.into_iter().any(|what| found.contains(what));
    assert!(
        found.as_ref().is_err_and(is_that),
        "{bug:?} was taken for {found:?}"
    );
}
