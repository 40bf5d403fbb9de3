//! `isolation = "…"`: the body runs at the level that was asked for, and at read committed when none was.

use effectively::{Failure, Outcome, idempotent, outbox};
use effectively_tests::{TestDb, TestServer, on_every_database};
use sqlx::Database;

use crate::shop::{Orders, Placed, Shop, ShopDb, ShopError, first, send};

type Answer = Result<Outcome<String>, Failure<ShopError>>;

macro_rules! at_level {
    ($($name:ident $(($level:literal))?)*) => {$(
        #[idempotent(key = "{id}" $(, isolation = $level)?)]
        async fn $name<C: Orders>(tx: &mut C, id: i64, db: &TestDb<C::Db>) -> Result<String, ShopError>
        where
            C::Db: TestServer,
        {
            let _ = id;
            level(tx, db).await
        }
    )*};
}
at_level! {
    by_default
    committed("read committed")
    repeatable("repeatable read")
    serializable("serializable")
}

#[outbox(isolation = "serializable")]
async fn without_a_key<C: Orders>(
    tx: &mut C,
    db: &TestDb<C::Db>,
    seen: &mut String,
) -> Result<Option<Placed>, ShopError>
where
    C::Db: TestServer,
{
    *seen = level(tx, db).await?;
    Ok(None)
}

/// The level of the transaction that is open.
async fn level<C: Orders>(tx: &mut C, db: &TestDb<C::Db>) -> Result<String, ShopError>
where
    C::Db: TestServer,
{
    if <C::Db as Database>::NAME == "PostgreSQL" {
        let level = "select current_setting('transaction_isolation')";
        return Ok(tx.text(level).await?);
    }
    // MySQL does not tell. But a serializable read locks, and a repeatable one does not see what others commit after it.
    let count = "select count(*) from orders";
    let before = tx.count(count).await?;
    let mut other = db.admin().acquire().await?;
    let lock = "select item from orders limit 1 for update nowait";
    let level = if C::Db::execute(&mut other, lock).await.is_err() {
        "serializable"
    } else {
        db.execute("insert into orders values ('theirs')").await;
        if tx.count(count).await? == before {
            "repeatable read"
        } else {
            "read committed"
        }
    };
    Ok(level.into())
}

on_every_database!([postgres, mysql] a_body_runs_at_the_level_that_was_asked_for);

async fn a_body_runs_at_the_level_that_was_asked_for<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.db.execute("insert into orders values ('first')").await;
    let level = |answer: Answer| first(answer).into_result().expect("a response");
    // Twice, and mixed: a level must not stay with the session.
    for id in 0..2 {
        let (ledger, db) = (|| shop.ledger(), &shop.db);
        let answer = send(serializable::<DB::Connection>(ledger(), id, db)).await;
        assert_eq!(level(answer), "serializable");
        let answer = send(by_default::<DB::Connection>(ledger(), id, db)).await;
        assert_eq!(level(answer), "read committed");
        let answer = send(repeatable::<DB::Connection>(ledger(), id, db)).await;
        assert_eq!(level(answer), "repeatable read");
        let answer = send(committed::<DB::Connection>(ledger(), id, db)).await;
        assert_eq!(level(answer), "read committed");
        let mut seen = String::new();
        let answer = send(without_a_key::<DB::Connection>(ledger(), db, &mut seen)).await;
        answer.expect("an answer");
        assert_eq!(seen, "serializable");
    }
}
