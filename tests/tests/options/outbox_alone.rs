//! `#[outbox]` without a key: the order and its events are committed as one, or an error says that they are not.
//!
//! What a body does to its own transaction, and what it leaves behind on each database, is the table of the guide; but without a
//! claim no gate is there, so a COMMIT of the body is stored everywhere.

use effectively::{Emit, ErrorKind, Failure, Ledger, outbox};
use effectively_tests::{TestDb, eventually, on_every_database};

use crate::shop::{Orders, Placed, SOON, Shop, ShopDb, ShopError, kind, send};

/// What a body does, step by step.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A statement whose error is passed on.
    Run(&'static str),
    /// A statement whose error is swallowed.
    Swallow(&'static str),
    GiveUp,
}
use Step::{GiveUp, Run, Swallow};

const A: Step = Run("insert into orders values ('a')");
const B: Step = Run("insert into orders values ('b')");
const NO_SUCH_TABLE: &str = "insert into nowhere values (1)";

#[outbox]
async fn place<C: Orders>(
    tx: &mut C,
    steps: &[Step],
    events: usize,
) -> Result<Emit<&'static str>, ShopError> {
    for step in steps {
        match step {
            Run(sql) => drop(tx.run(sql).await?),
            Swallow(sql) => assert!(tx.run(sql).await.is_err()),
            GiveUp => return Err(ShopError::SoldOut),
        }
    }
    Ok(Emit::new("placed").events((0..events).map(|n| Placed::of(n.to_string()))))
}

/// How a call ended.
#[derive(Debug, PartialEq)]
enum End {
    Committed,
    Lost,
    Erred,
}
use End::{Committed, Erred, Lost};

/// The same end, and the same orders behind it, with and without events, bound and as text.
async fn ends<DB: ShopDb>(shop: &Shop<DB>, steps: &[Step], end: End, orders: i64) {
    for literals in [false, true] {
        let ledger = Ledger::builder(shop.db.pool().clone()).payload_literals(literals);
        let ledger = ledger.build().expect("a ledger");
        for events in [0, 2] {
            let with = format!("{steps:?} with {events} events, literals: {literals}");
            shop.db.execute("delete from orders").await;
            shop.db.execute("delete from effectively_outbox").await;
            let answer = send(place::<DB::Connection>(ledger.clone(), steps, events)).await;
            let found = match &answer {
                Ok(response) => {
                    assert_eq!(*response, "placed");
                    Committed
                }
                Err(Failure::Toolkit(error)) => {
                    assert_eq!(*error.kind(), ErrorKind::TransactionLost, "{with}");
                    Lost
                }
                Err(Failure::Handler(_)) => Erred,
            };
            assert_eq!(found, end, "{with}");
            let committed = if end == Committed { events as i64 } else { 0 };
            assert_eq!(shop.stored().await, (orders, committed, 0), "{with}");
        }
    }
    eventually(SOON, async || shop.db.busy_sessions().await == 0).await;
}

fn on_sqlite<DB: ShopDb>() -> bool {
    DB::NAME == "SQLite"
}

fn on_mysql<DB: ShopDb>() -> bool {
    DB::NAME == "MySQL"
}

on_every_database!(
    a_body_that_commits_nothing_by_itself_is_committed_with_its_events,
    an_error_rolls_everything_back,
    a_rollback_of_the_body_is_never_reported_as_a_success,
    a_commit_of_the_body_is_never_reported_as_a_success,
    a_statement_that_changes_the_schema_is_part_of_the_transaction_or_an_error,
    a_swallowed_error_costs_its_statement_or_the_transaction,
    an_event_that_cannot_be_stored_rolls_everything_back,
);
on_every_database!([sqlite] a_conflict_that_rolls_back_is_never_reported_as_a_success);

async fn a_body_that_commits_nothing_by_itself_is_committed_with_its_events<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    ends(&shop, &[], Committed, 0).await;
    ends(&shop, &[A], Committed, 1).await;
    let savepoint = [
        A,
        Run("savepoint mine"),
        B,
        Run("rollback to savepoint mine"),
    ];
    ends(&shop, &savepoint, Committed, 1).await;
}

async fn an_error_rolls_everything_back<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    ends(&shop, &[A, GiveUp], Erred, 0).await;
    ends(&shop, &[A, Run(NO_SUCH_TABLE)], Erred, 0).await;
}

async fn a_rollback_of_the_body_is_never_reported_as_a_success<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let rollback = Run("rollback");
    ends(&shop, &[rollback], Lost, 0).await;
    ends(&shop, &[A, rollback], Lost, 0).await;
    ends(&shop, &[A, rollback, B], Erred, 0).await;
    // SQLite refuses the commit only, and nobody asks for it.
    let end = if on_sqlite::<DB>() { Lost } else { Erred };
    ends(&shop, &[A, rollback, Run("begin"), B], end, 0).await;
    ends(&shop, &[A, rollback, B, GiveUp], Erred, 0).await;
}

async fn a_commit_of_the_body_is_never_reported_as_a_success<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let commit = Run("commit");
    // SQLite refuses it, and rolls back.
    let (end, stays) = if on_sqlite::<DB>() {
        (Erred, 0)
    } else {
        (Lost, 1)
    };
    ends(&shop, &[A, commit], end, stays).await;
    ends(&shop, &[A, commit, Run("begin"), B], Erred, stays).await;
    ends(&shop, &[A, commit, GiveUp], Erred, stays).await;
}

async fn a_statement_that_changes_the_schema_is_part_of_the_transaction_or_an_error<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    let notes = [
        A,
        Run("create table notes (n int)"),
        Run("drop table notes"),
    ];
    // It commits on MySQL, and the session is read-only after that.
    let end = if on_mysql::<DB>() { Erred } else { Committed };
    ends(&shop, &notes, end, 1).await;
}

async fn a_swallowed_error_costs_its_statement_or_the_transaction<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let (end, orders) = if DB::NAME == "PostgreSQL" {
        (Lost, 0)
    } else {
        (Committed, 1)
    };
    ends(&shop, &[A, Swallow(NO_SUCH_TABLE)], end, orders).await;
}

async fn a_conflict_that_rolls_back_is_never_reported_as_a_success<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.db
        .execute("create table once (n integer unique)")
        .await;
    let conflict = Swallow("insert or rollback into once values (1), (1)");
    ends(&shop, &[A, conflict], Lost, 0).await;
    ends(&shop, &[A, conflict, B], Erred, 0).await;
}

#[outbox]
async fn place_without_a_partition<C: Orders>(tx: &mut C) -> Result<Option<Placed>, ShopError> {
    tx.insert("a").await?;
    Ok(Some(Placed::of("a\0")))
}

async fn an_event_that_cannot_be_stored_rolls_everything_back<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let answer = place_without_a_partition::<DB::Connection>(shop.ledger()).await;
    assert!(matches!(kind(&answer), Some(ErrorKind::Encode(_))));
    assert_eq!(shop.stored().await, (0, 0, 0));
}
