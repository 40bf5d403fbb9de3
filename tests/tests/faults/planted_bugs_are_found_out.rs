//! A checker that never finds anything proves nothing: with a bug planted in its processes, the same work has a history that no
//! correct system can have.

use effectively::fault::{Bug, plant};
use effectively_tests::{TestDb, Worker, on_every_database};

use crate::deliveries;
use crate::interruptions_overwrite_nothing::interrupted_beside_another;
use crate::mixed_work::{Shift, history_of, open, work};
use crate::moved_rows_are_in_one_table::moved_with_failing_statements;
use crate::shop::ShopDb;
use crate::stale_leases_change_nothing::published_under_a_new_epoch;
use crate::wrong_clocks_change_nothing::wrong_with_wrong_clocks;

on_every_database!(
    an_answer_before_the_commit_is_found_out,
    a_missing_fence_is_found_out,
    a_claim_that_other_processes_do_not_see_is_found_out,
    a_relay_that_settles_what_was_not_taken_is_found_out,
    a_renewal_that_ignores_the_epoch_is_found_out,
);
// PostgreSQL moves a row in one statement.
on_every_database!([mysql, sqlite] a_move_in_two_transactions_is_found_out);
// MySQL needs no mark: what the body does without its transaction is rolled back.
on_every_database!([postgres] an_interruption_that_overwrites_an_answer_is_found_out);
// With SQLite, the database's clock is that of the process.
on_every_database!([postgres, mysql] an_expiry_by_the_clock_of_the_process_is_found_out);

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
    let history = history_of(std::slice::from_ref(&db)).await;
    let found = history.check(&deliveries::delivered(&db).await);
    let is_that = |found: &String| as_what.into_iter().any(|what| found.contains(what));
    assert!(
        found.as_ref().is_err_and(is_that),
        "{bug:?} was taken for {found:?}"
    );
}

async fn a_renewal_that_ignores_the_epoch_is_found_out<DB: ShopDb>(db: TestDb<DB>) {
    fails(db, Bug::RenewalIgnoresEpoch, published_under_a_new_epoch).await;
}

async fn a_move_in_two_transactions_is_found_out<DB: ShopDb>(db: TestDb<DB>) {
    let bug = Bug::MovesInTwoTransactions;
    fails(db, bug, moved_with_failing_statements).await;
}

async fn an_interruption_that_overwrites_an_answer_is_found_out<DB: ShopDb>(db: TestDb<DB>) {
    let bug = Bug::InterruptionOverwrites;
    fails(db, bug, interrupted_beside_another).await;
}

async fn an_expiry_by_the_clock_of_the_process_is_found_out<DB: ShopDb>(db: TestDb<DB>) {
    if let Some(found) = wrong_with_wrong_clocks(db, Some(Bug::ProcessClock)).await {
        let by = |clock| found.iter().any(|found| found.starts_with(clock));
        assert!(by("+2d") && by("-2d"), "{found:?}");
    }
}

/// What holds without the bug does not hold in a process that has it.
async fn fails<DB: ShopDb>(
    db: TestDb<DB>,
    bug: Bug,
    check: impl AsyncFnOnce(TestDb<DB>) -> Result<(), String>,
) {
    if Worker::input::<()>().is_some() {
        plant(bug);
        let found = check(db).await;
        return Worker::say(found.expect_err("the bug was not noticed"));
    }
    let found = db.worker(&()).finish().await;
    assert_eq!(found.len(), 1, "{found:?}");
}
