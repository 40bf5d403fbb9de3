//! A handler inside the body of another is refused, and `guard` knows what is inside.

use effectively::guard::{inside_claim, refuse_inside_claim};
use effectively::{ErrorKind, Failure, Ledger, idempotent, outbox};
use effectively_tests::{TestDb, on_every_database};

use crate::shop::{Orders, Placed, Shop, ShopDb, ShopError, first, kind, send};

#[idempotent(key = "{item}")]
async fn inner<C: Orders>(tx: &mut C, item: String) -> Result<(), ShopError> {
    Ok(tx.insert(&item).await?)
}

#[idempotent(key = "{item}", detach)]
async fn detached_inner<C: Orders>(tx: &mut C, item: String) -> Result<(), ShopError> {
    Ok(tx.insert(&item).await?)
}

#[outbox]
async fn inner_without_a_key<C: Orders>(tx: &mut C) -> Result<Vec<Placed>, ShopError> {
    tx.insert("inner").await?;
    Ok(vec![Placed::of("inner")])
}

/// Calls each kind of handler, with its own key too, and goes on when all were refused.
#[idempotent(key = "{item}")]
async fn outer<C: Orders>(
    tx: &mut C,
    ledger: &Ledger<C::Db>,
    item: String,
) -> Result<(), ShopError> {
    tx.insert(&item).await?;
    let nested = Some(ErrorKind::NestedCall);
    assert_eq!(kind(&inner::<C>(ledger.clone(), "b".into()).await), nested);
    let detached = detached_inner::<C>(ledger.clone(), "b".into()).await;
    assert_eq!(kind(&detached), nested);
    assert_eq!(
        kind(&inner_without_a_key::<C>(ledger.clone()).await),
        nested
    );
    Ok(())
}

#[outbox]
async fn outer_without_a_key<C: Orders>(
    tx: &mut C,
    ledger: &Ledger<C::Db>,
) -> Result<Vec<Placed>, Failure<ShopError>> {
    tx.insert("outer")
        .await
        .map_err(|_| ErrorKind::Database.into())
        .map_err(Failure::Toolkit)?;
    // Passed on, the refusal ends the outer call as well.
    inner::<C>(ledger.clone(), "b".into()).await?;
    Ok(vec![])
}

on_every_database!(
    a_handler_inside_the_body_of_another_is_refused_and_the_outer_one_goes_on,
    a_refusal_that_is_passed_on_rolls_the_outer_call_back,
    the_guard_is_inside_in_the_body_alone,
);

async fn a_handler_inside_the_body_of_another_is_refused_and_the_outer_one_goes_on<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    // One connection: a call that waited for another one would wait for ever.
    let ledger = Ledger::new(shop.db.pool_with(1, None));
    first(send(outer::<DB::Connection>(ledger.clone(), &ledger, "a".into())).await);
    assert_eq!(shop.stored().await, (1, 0, 1));
    first(inner::<DB::Connection>(ledger.clone(), "b".into()).await);
    first(detached_inner::<DB::Connection>(ledger, "b".into()).await);
}

async fn a_refusal_that_is_passed_on_rolls_the_outer_call_back<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let answer = send(outer_without_a_key::<DB::Connection>(
        shop.ledger(),
        &shop.ledger,
    ))
    .await;
    let Err(Failure::Handler(Failure::Toolkit(error))) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(*error.kind(), ErrorKind::NestedCall);
    assert_eq!(shop.stored().await, (0, 0, 0));
    first(inner::<DB::Connection>(shop.ledger(), "b".into()).await);
}

/// What the guard says at each place.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Inside {
    body: bool,
    helper: bool,
    task: bool,
    refused: bool,
}

#[idempotent(key = "{item}")]
async fn look<C: Orders>(tx: &mut C, item: String, panics: bool) -> Result<Inside, ShopError> {
    tx.insert(&item).await?;
    let body = inside_claim();
    let helper = async { inside_claim() }.await;
    let task = tokio::spawn(async { inside_claim() }).await;
    assert!(!panics, "in the body");
    Ok(Inside {
        body,
        helper,
        task: task.expect("no panic"),
        refused: refuse_inside_claim().is_err(),
    })
}

async fn the_guard_is_inside_in_the_body_alone<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let call = |panics| look::<DB::Connection>(shop.ledger(), "a".into(), panics);
    let outside = || !inside_claim() && refuse_inside_claim().is_ok();
    assert!(outside());
    let panicked = tokio::spawn(call(true));
    assert!(panicked.await.is_err());
    let seen = first(send(call(false)).await).into_result();
    let expected = Inside {
        body: true,
        helper: true,
        task: false,
        refused: true,
    };
    assert_eq!(seen.expect("a response"), expected);
    assert!(outside());
}
