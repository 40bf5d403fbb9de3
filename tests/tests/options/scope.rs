//! `scope`: what keeps the keys of two handlers apart. Two handlers that share one are told so before anything happens.

use std::collections::BTreeSet;

use effectively::{ErrorKind, Failure, Ledger, Outcome, idempotent};
use effectively_tests::{LogCapture, TestDb, Worker, eventually, on_every_database};
use sqlx::{Sqlite, SqliteConnection};
use tokio::task::JoinSet;

use crate::shop::{Orders, SOON, Shop, ShopDb, ShopError, first, kind, replay, send};

type Answer = Result<Outcome<String>, Failure<ShopError>>;

#[idempotent(key = "{item}", scope = "orders.place")]
async fn place<C: Orders>(tx: &mut C, item: &str) -> Result<String, ShopError> {
    tx.insert(item).await?;
    Ok("placed".into())
}

#[idempotent(key = "{item}", scope = "orders.place")]
async fn replace<C: Orders>(tx: &mut C, item: &str) -> Result<String, ShopError> {
    tx.insert(item).await?;
    Ok("replaced".into())
}

#[idempotent(key = "{item}")]
async fn cancel<C: Orders>(tx: &mut C, item: &str) -> Result<String, ShopError> {
    tx.insert(item).await?;
    Ok("cancelled".into())
}

mod other {
    use super::{Orders, ShopError, idempotent};

    #[idempotent(key = "{item}")]
    pub async fn cancel<C: Orders>(tx: &mut C, item: &str) -> Result<String, ShopError> {
        tx.insert(item).await?;
        Ok("cancelled otherwise".into())
    }
}

on_every_database!(
    the_scope_is_stored_and_by_default_the_functions_name,
    a_second_handler_with_the_same_scope_is_refused_and_has_no_effect,
    two_functions_of_one_name_are_two_handlers,
    one_of_two_handlers_that_come_at_once_has_the_scope,
    one_handler_serves_two_databases_and_two_ledgers,
    ledgers_of_one_database_know_each_other_s_scopes,
    ledgers_that_come_at_once_agree_who_has_the_scope,
    another_prefix_is_another_registry,
    a_copy_of_the_database_is_another_registry,
    an_emptied_database_takes_calls_again,
    a_scope_of_two_processes_is_found,
    code_that_moved_is_not_warned_of_for_ever,
);
on_every_database!([postgres] schemas_are_told_apart_by_where_they_are);

async fn the_scope_is_stored_and_by_default_the_functions_name<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    first(send(place::<DB::Connection>(shop.ledger(), "a")).await);
    // The same key, another scope: another call.
    first(send(cancel::<DB::Connection>(shop.ledger(), "a")).await);
    let scopes = "select scope from effectively_claims order by scope";
    assert_eq!(shop.db.texts(scopes).await, ["cancel", "orders.place"]);
}

async fn a_second_handler_with_the_same_scope_is_refused_and_has_no_effect<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    first(place::<DB::Connection>(shop.ledger(), "a").await);
    for item in ["a", "b"] {
        let refused = replace::<DB::Connection>(shop.ledger(), item).await;
        let Some(ErrorKind::DuplicateScope {
            scope,
            first,
            second,
        }) = kind(&refused)
        else {
            panic!("{refused:?}");
        };
        assert_eq!(scope, "orders.place");
        assert!(first.contains("::place ") && first.contains("scope.rs:"));
        assert!(second.contains("::replace ") && second.contains("scope.rs:"));
        let Err(Failure::Toolkit(error)) = refused else {
            panic!("the toolkit's error");
        };
        let text = error.to_string();
        assert!(text.contains(first) && text.contains(second), "{text}");
        assert_eq!((error.status(), error.is_retryable()), (500, false));
    }
    assert_eq!(shop.stored().await, (1, 0, 1));
    let again = replay(place::<DB::Connection>(shop.ledger(), "a").await);
    assert_eq!(again.into_result().expect("a response"), "placed");
}

async fn two_functions_of_one_name_are_two_handlers<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    first(cancel::<DB::Connection>(shop.ledger(), "a").await);
    let refused = other::cancel::<DB::Connection>(shop.ledger(), "a").await;
    assert!(matches!(
        kind(&refused),
        Some(ErrorKind::DuplicateScope { second, .. }) if second.contains("other::cancel")
    ));
    assert_eq!(shop.stored().await, (1, 0, 1));
}

async fn one_of_two_handlers_that_come_at_once_has_the_scope<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let (mut calls, items) = (JoinSet::new(), ["a", "b", "c", "d", "e", "f", "g", "h"]);
    for item in items {
        let (one, other) = (shop.ledger(), shop.ledger());
        calls.spawn(place::<DB::Connection>(one, item));
        calls.spawn(replace::<DB::Connection>(other, item));
    }
    let answers: Vec<Answer> = calls.join_all().await;
    let (answered, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.is_ok());
    assert_eq!((answered.len(), refused.len()), (8, 8));
    let texts: Vec<_> = answered
        .into_iter()
        .map(|answer| first(answer).into_result().expect("a response"))
        .collect();
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    assert!(
        refused
            .iter()
            .all(|answer| matches!(kind(answer), Some(ErrorKind::DuplicateScope { .. })))
    );
    assert_eq!(shop.stored().await, (8, 0, 8));
}

async fn one_handler_serves_two_databases_and_two_ledgers<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let small = Shop::<Sqlite>::open(TestDb::new().await).await;
    first(place::<DB::Connection>(shop.ledger(), "a").await);
    first(place::<SqliteConnection>(small.ledger(), "a").await);
    replay(place::<SqliteConnection>(small.ledger(), "a").await);
    replay(place::<DB::Connection>(shop.elsewhere(), "a").await);
    assert_eq!((shop.orders().await, small.orders().await), (1, 1));
}

async fn ledgers_of_one_database_know_each_other_s_scopes<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    // Another pool, and gone before the next call.
    first(place::<DB::Connection>(shop.elsewhere(), "a").await);
    for ledger in [shop.ledger(), shop.elsewhere()] {
        for item in ["a", "b"] {
            refused(&replace::<DB::Connection>(ledger.clone(), item).await);
        }
        replay(place::<DB::Connection>(ledger, "a").await);
    }
    assert_eq!(shop.stored().await, (1, 0, 1));
}

/// The first calls of many ledgers, all at once: one function has the scope on all of them.
async fn ledgers_that_come_at_once_agree_who_has_the_scope<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let pool = shop.db.pool_with(8, None);
    let mut calls = JoinSet::new();
    for item in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let (one, other) = (Ledger::new(pool.clone()), Ledger::new(pool.clone()));
        calls.spawn(place::<DB::Connection>(one, item));
        calls.spawn(replace::<DB::Connection>(other, item));
    }
    let answers: Vec<Answer> = calls.join_all().await;
    let (answered, turned_away): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.is_ok());
    assert_eq!((answered.len(), turned_away.len()), (8, 8));
    turned_away.iter().for_each(refused);
    let texts: BTreeSet<_> = answered
        .into_iter()
        .map(|answer| first(answer).into_result().expect("a response"))
        .collect();
    assert_eq!(texts.len(), 1, "{texts:?}");
}

/// Tables with another prefix hold other keys, so one scope may be another function's there.
async fn another_prefix_is_another_registry<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let other = Ledger::builder(shop.db.pool().clone()).table_prefix("second_");
    let other = other.build().expect("a ledger");
    other.migrate().await.expect("the toolkit's tables");
    first(place::<DB::Connection>(shop.ledger(), "a").await);
    first(replace::<DB::Connection>(other.clone(), "a").await);
    refused(&place::<DB::Connection>(other, "b").await);
    refused(&replace::<DB::Connection>(shop.ledger(), "b").await);
}

/// The same schema, said by the builder and found by the session, is one registry; another schema is another.
async fn schemas_are_told_apart_by_where_they_are<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let in_schema = |schema: &str| {
        let ledger = Ledger::builder(shop.db.pool().clone()).schema(schema);
        ledger.build().expect("a ledger")
    };
    let (same, other) = (in_schema("public"), in_schema("second"));
    other.migrate().await.expect("the toolkit's tables");
    first(place::<DB::Connection>(shop.ledger(), "a").await);
    first(replace::<DB::Connection>(other, "a").await);
    refused(&replace::<DB::Connection>(same, "b").await);
}

/// A copy has the identity of its original, and other keys.
async fn a_copy_of_the_database_is_another_registry<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let copy = Shop::open(TestDb::<DB>::new().await).await;
    let id = match DB::NAME {
        "PostgreSQL" => "id::text",
        _ => "hex(id)",
    };
    let id = shop
        .db
        .texts(&format!("select {id} from effectively_identity"))
        .await
        .concat();
    let id = match DB::NAME {
        "PostgreSQL" => format!("'{id}'"),
        _ => format!("X'{id}'"),
    };
    let update = format!("update effectively_identity set id = {id}");
    assert_eq!(copy.db.execute(&update).await, 1);
    first(place::<DB::Connection>(shop.ledger(), "a").await);
    first(replace::<DB::Connection>(copy.elsewhere(), "a").await);
}

/// As a test harness does between two tests: the row that the migration made is gone, too.
async fn an_emptied_database_takes_calls_again<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    first(place::<DB::Connection>(shop.ledger(), "a").await);
    for table in ["claims", "identity", "scopes"] {
        shop.db
            .execute(&format!("delete from effectively_{table}"))
            .await;
    }
    first(place::<DB::Connection>(shop.ledger(), "b").await);
    first(place::<DB::Connection>(shop.elsewhere(), "c").await);
    assert_eq!(
        shop.db
            .number("select count(*) from effectively_identity")
            .await,
        1
    );
}

/// In two processes nobody can be refused in time: both are named, in the log and by the ledger.
async fn a_scope_of_two_processes_is_found<DB: ShopDb>(db: TestDb<DB>) {
    const PLACES: [&str; 2] = ["::place (", "::replace ("];
    if let Some(role) = Worker::input::<String>() {
        let (log, ledger) = (LogCapture::global(), Ledger::new(db.pool().clone()));
        let said = || PLACES.map(|place| log.lines_with(place).len());
        match role.as_str() {
            "place" => {
                first(place::<DB::Connection>(ledger, "a").await);
                eventually(SOON, async || noted(&db).await == 1).await;
                assert_eq!(said(), [0, 0], "{}", log.text());
            }
            "replace" => {
                first(replace::<DB::Connection>(ledger, "b").await);
                eventually(SOON, async || said() == [1, 1]).await;
            }
            _ => {
                ledger.migrate().await.expect("nothing left to do");
                assert_eq!(said(), [1, 1], "{}", log.text());
            }
        }
        return;
    }
    let shop = Shop::open(db).await;
    for (role, uses) in [("place", 0), ("replace", 2), ("start", 2)] {
        shop.db.worker(&role).finish().await;
        let shared = shop.ledger.shared_scopes().await.expect("a list");
        assert_eq!(shared.len(), uses, "{shared:?}");
        for (shared, place) in shared.iter().zip(PLACES) {
            assert_eq!(shared.scope, "orders.place");
            assert!(shared.place.contains(place) && shared.place.contains("scope.rs:"));
        }
    }
}

/// A function that moves within its module keeps its place; one that was renamed is forgotten after a week.
async fn code_that_moved_is_not_warned_of_for_ever<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let ledger = shop.ledger();
    let shared = async || ledger.shared_scopes().await.expect("a list").len();
    first(place::<DB::Connection>(shop.ledger(), "a").await);
    eventually(SOON, async || noted(&shop.db).await == 1).await;
    shop.db
        .execute("update effectively_scopes set place = 'elsewhere.rs:1'")
        .await;
    let path = shop
        .db
        .texts("select path from effectively_scopes")
        .await
        .concat();
    assert!(path.ends_with("scope::place"), "{path}");
    let renamed = |days: i64| match DB::NAME {
        "PostgreSQL" => format!("now() - interval '{days} days'"),
        "MySQL" => format!("utc_timestamp(6) - interval {days} day"),
        _ => format!("(julianday('now') - 2440587.5 - {days}) * 86400000"),
    };
    let insert = format!(
        "insert into effectively_scopes (scope, path, place, seen_at) \
         values ('orders.place', 'shop::buy', 'shop::buy (buy.rs:3)', {})",
        renamed(8)
    );
    shop.db.execute(&insert).await;
    assert_eq!(shared().await, 0);
    let update = format!(
        "update effectively_scopes set seen_at = {} where path = 'shop::buy'",
        renamed(6)
    );
    shop.db.execute(&update).await;
    assert_eq!(shared().await, 2);
}

async fn noted<DB: ShopDb>(db: &TestDb<DB>) -> i64 {
    db.number("select count(*) from effectively_scopes").await
}

#[track_caller]
fn refused(answer: &Answer) {
    let kind = kind(answer);
    assert!(
        matches!(kind, Some(ErrorKind::DuplicateScope { .. })),
        "{kind:?}"
    );
}
