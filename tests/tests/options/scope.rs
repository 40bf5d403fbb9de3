//! `scope`: what keeps the keys of two handlers apart. Two handlers that share one are told so before anything happens.

use effectively::{ErrorKind, Failure, Outcome, idempotent};
use effectively_tests::{TestDb, on_every_database};
use sqlx::{Sqlite, SqliteConnection};
use tokio::task::JoinSet;

use crate::shop::{Orders, Shop, ShopDb, ShopError, first, kind, replay, send};

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
);

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
    // Another ledger of the same database, on which the other handler has the scope.
    let other = shop.elsewhere();
    first(replace::<DB::Connection>(other.clone(), "b").await);
    replay(place::<DB::Connection>(shop.ledger(), "b").await);
    let refused = place::<DB::Connection>(other, "c").await;
    assert!(matches!(
        kind(&refused),
        Some(ErrorKind::DuplicateScope { .. })
    ));
    assert_eq!((shop.orders().await, small.orders().await), (2, 1));
}
