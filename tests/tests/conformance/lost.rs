//! I1, I2: once the transaction that claimed the key is gone, nothing that its body writes afterwards can commit. The database
//! itself refuses it, whatever the body returns and whether anybody still waits for the answer.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use effectively::{Failure, Ledger, Outcome};
use effectively_tests::{TestDb, eventually, on_every_database};
use sqlx::Connection;
use tokio::sync::oneshot;

use crate::shop::{SOON, Shop, ShopDb, ShopError, insert, shop_key};

on_every_database!([mysql, sqlite]
    nothing_is_written_after_a_dropped_savepoint,
    nothing_is_written_after_a_rollback_of_the_bodys_own,
    a_duplicate_that_waits_elsewhere_meets_no_write_of_a_lost_call,
    a_connection_commits_again_for_its_next_borrower,
);
on_every_database!([mysql, sqlite] a_session_that_a_borrower_has_left_unfit_is_replaced);
on_every_database!([mysql]
    nothing_is_written_after_a_commit_of_the_bodys_own,
    nothing_is_written_after_a_change_of_the_schema,
    tables_that_a_body_locks_are_free_after_it,
    a_session_that_is_read_only_by_default_serves_calls_and_stays_so,
);

/// How a body loses its transaction.
#[derive(Debug, Clone, Copy)]
enum Loss {
    /// What `timeout` does to a helper that opens a savepoint: sqlx answers a `begin` that is dropped in flight with ROLLBACK.
    DroppedBegin,
    Statement(&'static str),
}

impl Loss {
    async fn happen<DB: ShopDb>(self, tx: &mut DB::Connection) {
        match self {
            Self::DroppedBegin => begin_and_drop::<DB>(tx).await,
            Self::Statement(sql) => drop(DB::execute(tx, sql).await),
        }
    }
}

async fn begin_and_drop<DB: ShopDb>(tx: &mut DB::Connection) {
    loop {
        let mut begin = pin!(tx.begin());
        let asked = std::future::poll_fn(|context| Poll::Ready(begin.as_mut().poll(context))).await;
        match asked {
            Poll::Pending => return,
            // The answer was there at once.
            Poll::Ready(inner) => {
                let inner = inner.expect("a savepoint");
                inner.commit().await.expect("a released savepoint");
            }
        }
    }
}

/// How the call ends after that.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Success,
    Error,
    Panic,
    HangUp,
}

/// One order before the loss and one after it, which a retry of the body would place again.
async fn call<DB: ShopDb>(
    ledger: &Ledger<DB>,
    key: &str,
    loss: Loss,
    end: End,
    written: oneshot::Sender<()>,
) -> Result<Outcome<String>, Failure<ShopError>> {
    let body = async |tx: &mut DB::Connection| {
        insert::<DB>(tx, "before").await?;
        loss.happen::<DB>(tx).await;
        let late = insert::<DB>(tx, "late").await;
        assert!(late.is_err(), "written after {loss:?}");
        let _ = DB::execute(tx, "begin").await;
        // MySQL refuses the write already, SQLite the commit.
        let late = insert::<DB>(tx, "late").await.is_err();
        let commit = DB::execute(tx, "commit").await.is_err();
        assert!(late || commit, "committed after {loss:?}");
        Ok::<_, ShopError>("placed".to_owned())
    };
    ledger
        .run(shop_key(key), async |tx: &mut DB::Connection| {
            let placed = body(tx).await;
            let _ = written.send(());
            match end {
                End::Success => placed,
                End::Error => Err(ShopError::GaveUp),
                End::Panic => panic!("the body gave up"),
                End::HangUp => std::future::pending().await,
            }
        })
        .await
}

/// `stays`: how many orders the loss itself has committed, on MySQL.
async fn nothing_is_written_after<DB: ShopDb>(db: TestDb<DB>, loss: Loss, stays: i64) {
    let shop = Shop::open(db).await;
    for end in [End::Success, End::Error, End::Panic, End::HangUp] {
        let key = format!("{end:?}");
        let (written, heard) = oneshot::channel();
        let (ledger, named) = (shop.ledger.clone(), key.clone());
        let first =
            tokio::spawn(async move { call(&ledger, &named, loss, end, written).await.map(drop) });
        heard
            .await
            .expect("a body that was refused its late writes");
        if end == End::HangUp {
            first.abort();
        }
        let answer = first.await;
        assert!(!matches!(answer, Ok(Ok(()))), "a success after {loss:?}");
        eventually(SOON, async || match shop.db.busy_sessions().await {
            0 => Ok(()),
            busy => Err(format!("{busy} sessions are busy")),
        })
        .await;
        let late = "select count(*) from orders where item = 'late'";
        assert_eq!(shop.db.number(late).await, 0, "{end:?}");
        assert_eq!(shop.orders().await, stays, "{end:?}");
        shop.db.execute("delete from orders").await;
    }
    shop.assert_healthy().await;
    shop.assert_free("another key").await;
}

async fn nothing_is_written_after_a_dropped_savepoint<DB: ShopDb>(db: TestDb<DB>) {
    nothing_is_written_after(db, Loss::DroppedBegin, 0).await;
}

async fn nothing_is_written_after_a_rollback_of_the_bodys_own<DB: ShopDb>(db: TestDb<DB>) {
    nothing_is_written_after(db, Loss::Statement("rollback"), 0).await;
}

async fn nothing_is_written_after_a_commit_of_the_bodys_own<DB: ShopDb>(db: TestDb<DB>) {
    nothing_is_written_after(db, Loss::Statement("commit"), 1).await;
}

async fn nothing_is_written_after_a_change_of_the_schema<DB: ShopDb>(db: TestDb<DB>) {
    let changes = Loss::Statement("create table if not exists notes (note int)");
    nothing_is_written_after(db, changes, 1).await;
}

async fn a_duplicate_that_waits_elsewhere_meets_no_write_of_a_lost_call<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    let (in_body, started) = oneshot::channel();
    let ledger = shop.ledger.clone();
    let first = tokio::spawn(async move {
        let body = async |tx: &mut DB::Connection| {
            let _ = in_body.send(());
            tokio::time::sleep(Duration::from_millis(300)).await;
            begin_and_drop::<DB>(tx).await;
            let late = insert::<DB>(tx, "charge").await;
            assert!(late.is_err(), "written after the claim is gone");
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok::<_, ShopError>(())
        };
        ledger.run(shop_key("a"), body).await.map(drop)
    });
    started.await.expect("the body runs");
    let elsewhere = shop.elsewhere();
    let duplicate = elsewhere.call(shop_key("a")).wait(SOON);
    let charge =
        async |tx: &mut DB::Connection| Ok::<_, ShopError>(insert::<DB>(tx, "charge").await?);
    let duplicate = duplicate.run(charge).await;
    assert!(first.await.expect("no panic").is_err());
    assert_eq!(shop.orders().await, i64::from(duplicate.is_ok()));
}

/// A pool of one: whoever is next has the very connection on which a call was committed, rolled back or answered from a replay.
async fn a_connection_commits_again_for_its_next_borrower<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    shop.ledger = Ledger::new(shop.db.pool_with(1, None));
    let gives_up = async |_: &mut DB::Connection| Err::<(), _>(ShopError::GaveUp);
    for _ in 0..2 {
        shop.order("a").await.expect("an answer");
        shop.assert_healthy().await;
        assert!(shop.ledger.run(shop_key("b"), gives_up).await.is_err());
        shop.assert_healthy().await;
    }
}

async fn a_session_that_a_borrower_has_left_unfit_is_replaced<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    let left: &[&str] = match DB::NAME {
        "MySQL" => &[
            "begin",
            "begin; insert into orders values ('left')",
            "lock tables orders read",
            "lock tables effectively_claims read",
        ],
        _ => &["begin", "begin; insert into orders values ('left')"],
    };
    for (n, sql) in left.iter().enumerate() {
        for reuse in [false, true] {
            shop.ledger = Ledger::builder(shop.db.pool_with(1, None))
                .reuse_connections(reuse)
                .build()
                .expect("a ledger");
            // The ledger has found its tables before.
            shop.order(&format!("before {n} {reuse}"))
                .await
                .expect("an answer");
            let mut borrowed = shop.ledger.pool().acquire().await.expect("a connection");
            DB::execute(&mut borrowed, sql).await.expect("what is left");
            drop(borrowed);
            let next = shop.order(&format!("{n} {reuse}")).await;
            assert!(!next.expect("the next call").is_replay(), "{sql}");
            shop.assert_healthy().await;
        }
    }
    let orders = 4 * left.len() as i64;
    assert_eq!(shop.stored().await, (orders, orders, orders));
}

/// LOCK TABLES commits. The locks outlive every transaction, so a connection that went back with them would stop all others.
async fn tables_that_a_body_locks_are_free_after_it<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    shop.ledger = Ledger::new(shop.db.pool_with(1, None));
    let locks = [
        "lock tables orders write",
        "lock tables orders read",
        "lock tables effectively_claims read",
    ];
    for sql in locks {
        for fails in [false, true] {
            let body = async |tx: &mut DB::Connection| {
                let _ = DB::execute(tx, sql).await;
                if fails {
                    Err(ShopError::GaveUp)
                } else {
                    Ok(())
                }
            };
            let key = format!("{sql} {fails}");
            assert!(shop.ledger.run(shop_key(&key), body).await.is_err());
            let next = shop.order(&format!("after {key}")).await;
            assert!(!next.expect("the next call").is_replay());
            shop.assert_healthy().await;
        }
    }
}

async fn a_session_that_is_read_only_by_default_serves_calls_and_stays_so<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let mut shop = Shop::open(db).await;
    let options = sqlx::pool::PoolOptions::new()
        .max_connections(1)
        .after_connect(|connection, _| {
            Box::pin(async {
                DB::execute(connection, "set session transaction read only").await?;
                Ok(())
            })
        });
    shop.ledger = Ledger::new(shop.db.pool_from(options, None));
    let gives_up = async |_: &mut DB::Connection| Err::<(), _>(ShopError::GaveUp);
    assert!(!shop.order("a").await.expect("an answer").is_replay());
    assert!(shop.order("a").await.expect("an answer").is_replay());
    assert!(shop.ledger.run(shop_key("b"), gives_up).await.is_err());
    assert_eq!(shop.drain().await.len(), 1);
    let mut next = shop.ledger.pool().acquire().await.expect("a connection");
    let written = DB::execute(&mut next, "insert into orders values ('b')").await;
    let refused = written.expect_err("a write of a session that may not");
    let code = refused.as_database_error().and_then(|error| error.code());
    assert_eq!(code.as_deref(), Some("25006"));
}
