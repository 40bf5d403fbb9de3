//! I2: `tx.begin()` in the body, or in a helper that it calls, is a savepoint. The outer transaction stays ours.

use effectively_tests::{TestDb, on_every_database};
use sqlx::Connection;

use crate::bad_body::{Left, after};
use crate::shop::{ShopDb, ShopError, insert};

type Body = Result<(), ShopError>;

/// What the helper does with the transaction that it believes to be its own.
#[derive(Clone, Copy)]
enum End {
    Commit,
    Rollback,
    Drop,
}

/// Knows nothing of the toolkit.
async fn helper<DB: ShopDb>(tx: &mut DB::Connection, end: End) -> sqlx::Result<()> {
    let mut own = tx.begin().await?;
    insert::<DB>(&mut own, "helper").await?;
    match end {
        End::Commit => own.commit().await,
        End::Rollback => own.rollback().await,
        End::Drop => Ok(()),
    }
}

async fn with_helper<DB: ShopDb>(tx: &mut DB::Connection, end: End) -> Body {
    insert::<DB>(tx, "before").await?;
    helper::<DB>(tx, end).await?;
    insert::<DB>(tx, "after").await?;
    Ok(())
}

on_every_database!(
    what_a_helper_commits_is_committed_with_the_call,
    what_a_helper_commits_is_rolled_back_with_the_call,
    what_a_helper_rolls_back_is_not_in_the_call,
    what_a_helper_drops_is_not_in_the_call,
    what_a_helper_drops_last_is_not_in_the_call,
    a_savepoint_in_a_savepoint_is_one,
    an_error_inside_a_savepoint_does_not_lose_the_call,
);

async fn what_a_helper_commits_is_committed_with_the_call<DB: ShopDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| with_helper::<DB>(tx, End::Commit).await;
    after(db, body, Left::complete(3)).await;
}

async fn what_a_helper_commits_is_rolled_back_with_the_call<DB: ShopDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| {
        with_helper::<DB>(tx, End::Commit).await?;
        Err(ShopError::GaveUp)
    };
    after(db, body, Left::erred(0).free()).await;
}

async fn what_a_helper_rolls_back_is_not_in_the_call<DB: ShopDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| with_helper::<DB>(tx, End::Rollback).await;
    after(db, body, Left::complete(2)).await;
}

async fn what_a_helper_drops_is_not_in_the_call<DB: ShopDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| with_helper::<DB>(tx, End::Drop).await;
    after(db, body, Left::complete(2)).await;
}

/// sqlx sends the ROLLBACK TO of a dropped transaction with the next statement: here that is our fence.
async fn what_a_helper_drops_last_is_not_in_the_call<DB: ShopDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| {
        insert::<DB>(tx, "before").await?;
        helper::<DB>(tx, End::Drop).await?;
        Ok(())
    };
    after(db, body, Left::complete(1)).await;
}

async fn a_savepoint_in_a_savepoint_is_one<DB: ShopDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| {
        let mut outer = tx.begin().await?;
        helper::<DB>(&mut outer, End::Rollback).await?;
        let mut inner = outer.begin().await?;
        insert::<DB>(&mut inner, "inner").await?;
        inner.commit().await?;
        outer.commit().await?;
        Ok(())
    };
    after(db, body, Left::complete(1)).await;
}

/// How a body survives an SQL error on Postgres.
async fn an_error_inside_a_savepoint_does_not_lose_the_call<DB: ShopDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| {
        insert::<DB>(tx, "before").await?;
        let mut inner = tx.begin().await?;
        insert::<DB>(&mut inner, "inner").await?;
        let refused = DB::execute(&mut inner, "insert into nowhere values (1)").await;
        assert!(refused.is_err());
        inner.rollback().await?;
        insert::<DB>(tx, "after").await?;
        Ok(())
    };
    after(db, body, Left::complete(2)).await;
}

on_every_database!([postgres, mysql] a_savepoint_that_nobody_ends_does_no_harm);
on_every_database!([sqlite] a_savepoint_that_nobody_ends_is_an_error_and_leaves_nothing);

/// `Transaction` without its destructor: sqlx counts one level more than there is.
async fn leaks<DB: ShopDb>(tx: &mut DB::Connection) -> Body {
    let mut leaked = tx.begin().await?;
    insert::<DB>(&mut leaked, "leaked").await?;
    std::mem::forget(leaked);
    Ok(())
}

async fn a_savepoint_that_nobody_ends_does_no_harm<DB: ShopDb>(db: TestDb<DB>) {
    after(db, leaks::<DB>, Left::complete(1)).await;
}

async fn a_savepoint_that_nobody_ends_is_an_error_and_leaves_nothing<DB: ShopDb>(db: TestDb<DB>) {
    after(db, leaks::<DB>, Left::failed(0).free()).await;
}

on_every_database!([postgres, sqlite] a_whole_transaction_inside_loses_ours_and_interrupts_the_key);
on_every_database!([mysql] a_whole_transaction_inside_loses_ours_and_frees_the_key);

/// sqlx refuses it, and rolls our transaction back while it does.
async fn begins_with_a_message<DB: ShopDb>(tx: &mut DB::Connection) -> Body {
    let refused = tx.begin_with("begin").await.map(drop);
    assert!(matches!(
        refused,
        Err(sqlx::Error::InvalidSavePointStatement)
    ));
    let _ = insert::<DB>(tx, "outside").await;
    Ok(())
}

async fn a_whole_transaction_inside_loses_ours_and_interrupts_the_key<DB: ShopDb>(db: TestDb<DB>) {
    let left = Left::lost(0).interrupted();
    after(db, begins_with_a_message::<DB>, left).await;
}

async fn a_whole_transaction_inside_loses_ours_and_frees_the_key<DB: ShopDb>(db: TestDb<DB>) {
    after(db, begins_with_a_message::<DB>, Left::lost(0).free()).await;
}
