//! I2, I10: an SQL error that the body swallows never becomes a success for something that is not there.

use effectively::{Emit, ErrorKind};
use effectively_tests::{TestDb, on_every_database};

use crate::bad_body::{Left, after};
use crate::shop::{OrderPlaced, Shop, ShopDb, ShopError, insert, kind, shop_key};

type Body = Result<(), ShopError>;

on_every_database!([postgres] a_swallowed_error_loses_the_transaction_and_frees_the_key);
on_every_database!([mysql, sqlite] a_swallowed_error_costs_its_statement_and_nothing_else);
on_every_database!(an_error_that_is_passed_on_leaves_nothing_and_a_free_key);

async fn swallows_an_error<DB: ShopDb>(tx: &mut DB::Connection) -> Body {
    insert::<DB>(tx, "a").await?;
    let refused = DB::execute(tx, "insert into nowhere values (1)").await;
    assert!(refused.is_err());
    Ok(())
}

async fn a_swallowed_error_loses_the_transaction_and_frees_the_key<DB: ShopDb>(db: TestDb<DB>) {
    after(db, swallows_an_error::<DB>, Left::lost(0).free()).await;
}

async fn a_swallowed_error_costs_its_statement_and_nothing_else<DB: ShopDb>(db: TestDb<DB>) {
    after(db, swallows_an_error::<DB>, Left::complete(1)).await;
}

async fn an_error_that_is_passed_on_leaves_nothing_and_a_free_key<DB: ShopDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| {
        insert::<DB>(tx, "a").await?;
        DB::execute(tx, "insert into nowhere values (1)").await?;
        Ok(())
    };
    after(db, body, Left::erred(0).free()).await;
}

on_every_database!([sqlite] a_conflict_that_rolls_back_is_an_error_when_swallowed);
on_every_database!([sqlite] a_conflict_that_rolls_back_frees_the_key_when_passed_on);

/// SQLite's own way to end a transaction behind the body's back.
async fn conflicts<DB: ShopDb>(tx: &mut DB::Connection) -> Body {
    DB::execute(
        tx,
        "create temp table if not exists once (n integer unique)",
    )
    .await?;
    insert::<DB>(tx, "a").await?;
    DB::execute(tx, "insert or rollback into once values (1), (1)").await?;
    Ok(())
}

async fn a_conflict_that_rolls_back_is_an_error_when_swallowed<DB: ShopDb>(db: TestDb<DB>) {
    let body = async |tx: &mut DB::Connection| {
        assert!(conflicts::<DB>(tx).await.is_err());
        let late = insert::<DB>(tx, "b").await;
        assert!(late.is_err(), "a write outside of any transaction");
        Ok(())
    };
    after(db, body, Left::lost(0).interrupted()).await;
}

async fn a_conflict_that_rolls_back_frees_the_key_when_passed_on<DB: ShopDb>(db: TestDb<DB>) {
    after(db, conflicts::<DB>, Left::erred(0).free()).await;
}

on_every_database!([mysql] a_swallowed_deadlock_loses_the_transaction_and_frees_the_key);

/// InnoDB rolls the whole transaction back; without `autocommit = 0` it would then commit every later statement by itself.
async fn a_swallowed_deadlock_loses_the_transaction_and_frees_the_key<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.db
        .execute(
            "create table stock (item int primary key, n int not null);
             insert into stock values (1, 0), (2, 0)",
        )
        .await;
    let other = shop.elsewhere();
    let answer = shop
        .ledger
        .call(shop_key("a"))
        .run_with_events(async |tx: &mut DB::Connection| {
            insert::<DB>(tx, "a").await?;
            DB::execute(tx, "update stock set n = 1 where item = 1").await?;
            let mut theirs = other.pool().begin().await?;
            // They have changed more rows, so that we are the one to be rolled back.
            DB::execute(&mut theirs, "update stock set n = 2 where item = 2").await?;
            DB::execute(
                &mut theirs,
                "insert into orders with recursive n(n) as (select 1 union all select n + 1 from n where n < 50) select 'theirs' from n",
            )
            .await?;
            let (deadlock, _) = tokio::join!(
                DB::execute(tx, "update stock set n = 1 where item = 2"),
                DB::execute(&mut theirs, "update stock set n = 2 where item = 1"),
            );
            let code = deadlock.expect_err("a deadlock");
            let code = code.as_database_error().and_then(|error| error.code());
            assert_eq!(code.as_deref(), Some("40001"));
            theirs.rollback().await?;
            insert::<DB>(tx, "b").await?;
            Ok::<_, ShopError>(Emit::new("answer".to_owned()).event(OrderPlaced::of("a")))
        })
        .await;
    assert_eq!(kind(&answer), Some(ErrorKind::TransactionLost));
    assert_eq!(shop.stored().await, (0, 0, 0));
    shop.assert_free("a").await;
    shop.assert_healthy().await;
}
