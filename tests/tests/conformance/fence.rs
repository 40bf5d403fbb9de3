//! I2, I8, I10: a body that ends or loses its transaction, and returns `Ok` all the same, is never reported as a success.
//!
//! What it has already committed cannot be undone. Then the key is interrupted: the call is not run again before an operator has
//! looked. What it writes after its transaction has ended, the database refuses (`lost.rs`).

use effectively_tests::{TestDb, on_every_database};
use sqlx::Connection;

use crate::bad_body::{Left, after};
use crate::shop::{ShopDb, ShopError, insert};

type Body = Result<(), ShopError>;

on_every_database!([postgres, sqlite] a_rollback_of_the_body_interrupts_the_key);
on_every_database!([mysql] a_rollback_of_the_body_frees_the_key);

async fn rolls_back<DB: ShopDb>(tx: &mut DB::Connection) -> Body {
    insert::<DB>(tx, "a").await?;
    DB::execute(tx, "rollback").await?;
    Ok(())
}

async fn a_rollback_of_the_body_interrupts_the_key<DB: ShopDb>(db: TestDb<DB>) {
    after(db, rolls_back::<DB>, Left::lost(0).interrupted()).await;
}

/// Nothing can have stayed: the server has refused whatever came after the ROLLBACK.
async fn a_rollback_of_the_body_frees_the_key<DB: ShopDb>(db: TestDb<DB>) {
    after(db, rolls_back::<DB>, Left::lost(0).free()).await;
}

on_every_database!([postgres, sqlite] a_write_after_a_rollback_is_refused_and_the_key_is_interrupted);
on_every_database!([mysql] a_write_after_a_rollback_is_refused_and_the_key_is_free);

async fn writes_after_a_rollback<DB: ShopDb>(tx: &mut DB::Connection) -> Body {
    rolls_back::<DB>(tx).await?;
    let _ = insert::<DB>(tx, "b").await;
    Ok(())
}

async fn a_write_after_a_rollback_is_refused_and_the_key_is_interrupted<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let left = Left::lost(0).interrupted();
    after(db, writes_after_a_rollback::<DB>, left).await;
}

async fn a_write_after_a_rollback_is_refused_and_the_key_is_free<DB: ShopDb>(db: TestDb<DB>) {
    after(db, writes_after_a_rollback::<DB>, Left::lost(0).free()).await;
}

on_every_database!([mysql] a_write_after_a_rollback_is_refused_when_the_body_fails);

async fn a_write_after_a_rollback_is_refused_when_the_body_fails<DB: ShopDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| {
        writes_after_a_rollback::<DB>(tx).await?;
        Err(ShopError::GaveUp)
    };
    after(db, body, Left::erred(0).free()).await;
}

on_every_database!([sqlite] a_transaction_of_the_bodys_own_is_rolled_back);
on_every_database!([postgres, mysql] a_transaction_of_the_bodys_own_is_rolled_back_and_the_key_is_free);

async fn begins_its_own<DB: ShopDb>(tx: &mut DB::Connection) -> Body {
    DB::execute(tx, "rollback").await?;
    DB::execute(tx, "begin").await?;
    let _ = insert::<DB>(tx, "b").await;
    Ok(())
}

async fn a_transaction_of_the_bodys_own_is_rolled_back<DB: ShopDb>(db: TestDb<DB>) {
    after(db, begins_its_own::<DB>, Left::lost(0).interrupted()).await;
}

async fn a_transaction_of_the_bodys_own_is_rolled_back_and_the_key_is_free<DB: ShopDb>(
    db: TestDb<DB>,
) {
    after(db, begins_its_own::<DB>, Left::lost(0).free()).await;
}

on_every_database!([postgres] a_commit_fails_in_the_database_and_swallowing_that_is_an_error);
on_every_database!([sqlite] a_commit_fails_in_the_database_and_leaves_the_transaction_open);
on_every_database!([mysql] a_commit_cannot_be_undone_and_interrupts_the_key);

async fn commits<DB: ShopDb>(tx: &mut DB::Connection) -> Body {
    insert::<DB>(tx, "a").await?;
    DB::execute(tx, "commit").await?;
    Ok(())
}

async fn commits_and_goes_on<DB: ShopDb>(tx: &mut DB::Connection) -> Body {
    let _ = commits::<DB>(tx).await;
    Ok(())
}

/// The gate: the database has rolled back, and the fence finds no claim of ours.
async fn a_commit_fails_in_the_database_and_swallowing_that_is_an_error<DB: ShopDb>(
    db: TestDb<DB>,
) {
    after(db, commits_and_goes_on::<DB>, Left::lost(0).interrupted()).await;
}

/// SQLite only refuses the COMMIT. The transaction is still ours, so the call goes on and is complete.
async fn a_commit_fails_in_the_database_and_leaves_the_transaction_open<DB: ShopDb>(
    db: TestDb<DB>,
) {
    after(db, commits_and_goes_on::<DB>, Left::complete(1)).await;
}

async fn a_commit_cannot_be_undone_and_interrupts_the_key<DB: ShopDb>(db: TestDb<DB>) {
    after(db, commits::<DB>, Left::lost(1).interrupted()).await;
}

on_every_database!([postgres, sqlite] a_commit_that_is_passed_on_leaves_nothing_and_a_free_key);
on_every_database!([mysql] a_commit_before_an_error_interrupts_the_key);

async fn a_commit_that_is_passed_on_leaves_nothing_and_a_free_key<DB: ShopDb>(db: TestDb<DB>) {
    after(db, commits::<DB>, Left::erred(0).free()).await;
}

/// "`Err` rolls everything back" could not be kept, so the key is not free.
async fn a_commit_before_an_error_interrupts_the_key<DB: ShopDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| {
        commits::<DB>(tx).await?;
        Err(ShopError::GaveUp)
    };
    after(db, body, Left::erred(1).interrupted()).await;
}

on_every_database!([postgres, mysql] a_commit_and_a_begin_do_not_pass_for_our_transaction);

async fn a_commit_and_a_begin_do_not_pass_for_our_transaction<DB: ShopDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| {
        let _ = commits::<DB>(tx).await;
        DB::execute(tx, "begin").await?;
        let _ = insert::<DB>(tx, "b").await;
        Ok(())
    };
    // Only MySQL has committed the first order; the second one is refused or rolled back everywhere.
    let left = match DB::NAME {
        "MySQL" => Left::lost(1).interrupted(),
        _ => Left::lost(0).free(),
    };
    after(db, body, left).await;
}

on_every_database!([postgres, sqlite] a_statement_that_changes_the_schema_belongs_to_the_call);
on_every_database!([mysql] a_statement_that_changes_the_schema_commits_and_interrupts_the_key);

async fn changes_the_schema<DB: ShopDb>(tx: &mut DB::Connection) -> Body {
    insert::<DB>(tx, "a").await?;
    DB::execute(tx, "create table notes (note int)").await?;
    Ok(())
}

async fn a_statement_that_changes_the_schema_belongs_to_the_call<DB: ShopDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| {
        let mut inner = tx.begin().await?;
        changes_the_schema::<DB>(&mut inner).await?;
        inner.rollback().await?;
        // Rolled back with the savepoint: the name is free again.
        changes_the_schema::<DB>(tx).await?;
        DB::execute(tx, "drop table notes").await?;
        Ok(())
    };
    after(db, body, Left::complete(1)).await;
}

async fn a_statement_that_changes_the_schema_commits_and_interrupts_the_key<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let body = async |tx: &mut DB::Connection| {
        insert::<DB>(tx, "a").await?;
        // It commits first. MariaDB then refuses it, since the session is read-only outside of our transaction.
        let _ = DB::execute(tx, "create table if not exists notes (note int)").await;
        assert!(insert::<DB>(tx, "b").await.is_err());
        Ok(())
    };
    after(db, body, Left::lost(1).interrupted()).await;
}
