//! I2, I10: `#[outbox]` without a key has the same protection: what has not been committed as one is never reported as a success.

use effectively::__private::{
    Emitting, Handler, Isolation, OnError, Wrapped, commit, enter_unkeyed, inside, tx,
};
use effectively::{Emit, ErrorKind, Failure, TxParam};
use effectively_tests::{TestDb, on_every_database};
use sqlx::{Connection, Database};

use crate::shop::{OrderPlaced, Shop, ShopDb, ShopError, insert, kind};

const HANDLER: Handler = Handler {
    scope: "",
    place: "",
    retention: None,
    wait: None,
    isolation: Isolation::ReadCommitted,
    on_error: OnError::Release,
    retries: 0,
};

/// A database whose connection a handler can take.
pub trait HandlerDb: ShopDb + Database<Connection: TxParam<Db = Self>> {}
impl<DB: ShopDb + Database<Connection: TxParam<Db = DB>>> HandlerDb for DB {}

/// A call without a key, with one event, as generated code makes it.
pub async fn call<DB: HandlerDb>(
    shop: &Shop<DB>,
    body: impl AsyncFn(&mut DB::Connection) -> Result<(), ShopError>,
) -> Result<(), Failure<ShopError>> {
    let end = match enter_unkeyed(&shop.ledger, &HANDLER).await {
        Ok(mut claim) => {
            let lent: &mut DB::Connection = tx(&mut claim);
            let returned = inside(body(lent)).await;
            let answer = returned.map(|()| Emit::new(()).event(OrderPlaced::of("a")));
            Ok((claim, answer))
        }
        Err(error) => Err(error),
    };
    commit::<Emitting, Wrapped, Result<Emit<()>, ShopError>, DB>(end).await
}

/// The transaction is lost, no event is there, and so many orders are.
async fn lost<DB: HandlerDb>(
    db: TestDb<DB>,
    body: impl AsyncFn(&mut DB::Connection) -> Result<(), ShopError>,
    orders: i64,
) {
    let shop = Shop::open(db).await;
    let answer = call(&shop, body).await;
    assert_eq!(kind(&answer), Some(ErrorKind::TransactionLost));
    assert_eq!(shop.stored().await, (orders, 0, 0));
    shop.assert_healthy().await;
}

on_every_database!(
    a_call_without_a_key_commits_its_order_and_its_event,
    an_error_of_the_body_leaves_nothing,
    a_savepoint_of_a_helper_stays_inside,
    a_rollback_of_the_body_is_an_error,
    a_commit_of_the_body_is_an_error_and_no_event_is_stored,
    a_commit_and_a_begin_do_not_pass_for_our_transaction,
);
on_every_database!(a_write_after_a_rollback_is_refused);
on_every_database!([postgres] a_swallowed_error_loses_the_transaction);

async fn a_call_without_a_key_commits_its_order_and_its_event<DB: HandlerDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let body = async |tx: &mut DB::Connection| Ok(insert::<DB>(tx, "a").await?);
    call(&shop, body).await.expect("an answer");
    call(&shop, body).await.expect("an answer");
    assert_eq!(shop.stored().await, (2, 2, 0));
    shop.assert_healthy().await;
}

async fn an_error_of_the_body_leaves_nothing<DB: HandlerDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let body = async |tx: &mut DB::Connection| {
        insert::<DB>(tx, "a").await?;
        Err(ShopError::GaveUp)
    };
    let answer = call(&shop, body).await;
    assert!(matches!(answer, Err(Failure::Handler(ShopError::GaveUp))));
    assert_eq!(shop.stored().await, (0, 0, 0));
    shop.assert_healthy().await;
}

async fn a_savepoint_of_a_helper_stays_inside<DB: HandlerDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let body = async |tx: &mut DB::Connection| {
        let mut inner = tx.begin().await?;
        insert::<DB>(&mut inner, "a").await?;
        inner.commit().await?;
        Err(ShopError::GaveUp)
    };
    assert!(call(&shop, body).await.is_err());
    assert_eq!(shop.stored().await, (0, 0, 0));
}

async fn a_rollback_of_the_body_is_an_error<DB: HandlerDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| {
        insert::<DB>(tx, "a").await?;
        DB::execute(tx, "rollback").await?;
        Ok(())
    };
    lost(db, body, 0).await;
}

async fn a_write_after_a_rollback_is_refused<DB: HandlerDb>(db: TestDb<DB>) {
    lost(db, writes_after_a_rollback::<DB>, 0).await;
}

async fn writes_after_a_rollback<DB: HandlerDb>(tx: &mut DB::Connection) -> Result<(), ShopError> {
    DB::execute(tx, "rollback").await?;
    let _ = insert::<DB>(tx, "a").await;
    Ok(())
}

/// Without a claim there is no gate, and only SQLite can refuse the COMMIT: it turns it into a ROLLBACK.
fn committed<DB: HandlerDb>() -> i64 {
    i64::from(DB::NAME != "SQLite")
}

async fn a_commit_of_the_body_is_an_error_and_no_event_is_stored<DB: HandlerDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| {
        insert::<DB>(tx, "a").await?;
        let _ = DB::execute(tx, "commit").await;
        Ok(())
    };
    lost(db, body, committed::<DB>()).await;
}

async fn a_commit_and_a_begin_do_not_pass_for_our_transaction<DB: HandlerDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| {
        insert::<DB>(tx, "a").await?;
        let _ = DB::execute(tx, "commit").await;
        DB::execute(tx, "begin").await?;
        let _ = insert::<DB>(tx, "b").await;
        Ok(())
    };
    lost(db, body, committed::<DB>()).await;
}

async fn a_swallowed_error_loses_the_transaction<DB: HandlerDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| {
        insert::<DB>(tx, "a").await?;
        let _ = DB::execute(tx, "insert into nowhere values (1)").await;
        Ok(())
    };
    lost(db, body, 0).await;
}
