//! `detach`: the call outlives its caller, and a panic becomes an error.

use std::time::Duration;

use effectively::{Emit, ErrorKind, Failure, idempotent, outbox};
use effectively_tests::{TestDb, eventually, on_every_database};

use crate::shop::{Orders, Placed, SOON, Shop, ShopDb, ShopError, Stop, first, kind, replay, send};

#[idempotent(key = "{item}", wait = "20s", detach)]
#[outbox]
async fn detached<C: Orders>(
    tx: &mut C,
    item: String,
    stop: Stop,
) -> Result<Emit<String>, ShopError> {
    tx.insert(&item).await?;
    stop.here().await;
    Ok(Emit::new(format!("run {}", stop.runs())).event(Placed::of(item)))
}

#[idempotent(key = "{item}", wait = "20s")]
#[outbox]
async fn attached<C: Orders>(
    tx: &mut C,
    item: String,
    stop: Stop,
) -> Result<Emit<String>, ShopError> {
    tx.insert(&item).await?;
    stop.here().await;
    Ok(Emit::new(format!("run {}", stop.runs())).event(Placed::of(item)))
}

#[outbox(detach)]
async fn detached_without_a_key<C: Orders>(
    tx: &mut C,
    stop: Stop,
) -> Result<[Placed; 1], ShopError> {
    tx.insert("a").await?;
    stop.here().await;
    Ok([Placed::of("a")])
}

on_every_database!(
    a_detached_call_outlives_its_caller_and_the_next_one_gets_its_answer,
    a_next_call_waits_for_a_detached_one,
    a_call_that_is_not_detached_ends_with_its_caller,
    a_detached_call_without_a_key_outlives_its_caller,
    a_panic_becomes_an_error_that_tells_nothing_and_frees_the_key,
    a_panic_without_a_key_becomes_an_error,
    a_panic_of_a_call_that_is_not_detached_frees_the_key,
);

async fn a_detached_call_outlives_its_caller_and_the_next_one_gets_its_answer<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let (shop, stop) = (Shop::open(db).await, Stop::closed());
    let call = || detached::<DB::Connection>(shop.ledger(), "a".into(), stop.clone());
    let caller = tokio::spawn(call());
    stop.entered().await;
    caller.abort();
    assert!(caller.await.is_err());
    assert_eq!(shop.stored().await, (0, 0, 0));
    stop.let_go();
    eventually(SOON, async || shop.stored().await == (1, 1, 1)).await;
    let answer = replay(call().await).into_result();
    assert_eq!(answer.expect("a response"), "run 1");
    assert_eq!(stop.runs(), 1);
}

async fn a_next_call_waits_for_a_detached_one<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, stop) = (Shop::open(db).await, Stop::closed());
    let call = || {
        send(detached::<DB::Connection>(
            shop.ledger(),
            "a".into(),
            stop.clone(),
        ))
    };
    let caller = tokio::spawn(call());
    stop.entered().await;
    caller.abort();
    let (answer, ()) = tokio::join!(call(), async {
        tokio::task::yield_now().await;
        stop.let_go();
    });
    assert_eq!(replay(answer).into_result().expect("a response"), "run 1");
    assert_eq!(stop.runs(), 1);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn a_call_that_is_not_detached_ends_with_its_caller<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, stop) = (Shop::open(db).await, Stop::closed());
    let call = || {
        send(attached::<DB::Connection>(
            shop.ledger(),
            "a".into(),
            stop.clone(),
        ))
    };
    let caller = tokio::spawn(call());
    stop.entered().await;
    caller.abort();
    assert!(caller.await.is_err());
    stop.let_go();
    let answer = first(call().await).into_result();
    assert_eq!(answer.expect("a response"), "run 2");
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn a_detached_call_without_a_key_outlives_its_caller<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, stop) = (Shop::open(db).await, Stop::closed());
    let caller = tokio::spawn(detached_without_a_key::<DB::Connection>(
        shop.ledger(),
        stop.clone(),
    ));
    stop.entered().await;
    caller.abort();
    stop.let_go();
    eventually(SOON, async || shop.stored().await == (1, 1, 0)).await;
}

const SECRET: &str = "4111 1111";

#[idempotent(key = "{item}", detach)]
#[outbox]
async fn panicking<C: Orders>(
    tx: &mut C,
    item: String,
    panics: bool,
) -> Result<Emit<()>, ShopError> {
    tx.insert(&item).await?;
    assert!(!panics, "the body's secret is {SECRET}");
    Ok(Emit::new(()).event(Placed::of(item)))
}

#[outbox(detach)]
async fn panicking_without_a_key<C: Orders>(
    tx: &mut C,
    panics: bool,
) -> Result<Vec<Placed>, ShopError> {
    tx.insert("a").await?;
    assert!(!panics, "the body's secret is {SECRET}");
    Ok(vec![])
}

#[idempotent(key = "{item}")]
async fn panicking_in_the_caller<C: Orders>(
    tx: &mut C,
    item: String,
    panics: bool,
) -> Result<(), ShopError> {
    tx.insert(&item).await?;
    assert!(!panics, "the body's secret is {SECRET}");
    Ok(())
}

async fn a_panic_becomes_an_error_that_tells_nothing_and_frees_the_key<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let call = |panics| panicking::<DB::Connection>(shop.ledger(), "a".into(), panics);
    let answer = send(call(true)).await;
    assert_eq!(kind(&answer), Some(ErrorKind::Panicked));
    let Err(Failure::Toolkit(error)) = answer else {
        panic!("the toolkit's error");
    };
    assert_eq!((error.status(), error.is_retryable()), (500, false));
    assert!(!format!("{error:?} {error}").contains(SECRET));
    assert_eq!(shop.stored().await, (0, 0, 0));
    first(call(false).await);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn a_panic_without_a_key_becomes_an_error<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let call = |panics| panicking_without_a_key::<DB::Connection>(shop.ledger(), panics);
    assert_eq!(kind(&call(true).await), Some(ErrorKind::Panicked));
    call(false).await.expect("an answer");
    assert_eq!(shop.orders().await, 1);
}

async fn a_panic_of_a_call_that_is_not_detached_frees_the_key<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let call =
        |panics| panicking_in_the_caller::<DB::Connection>(shop.ledger(), "a".into(), panics);
    let panicked = tokio::spawn(call(true)).await;
    assert!(panicked.expect_err("a panic").is_panic());
    let next = tokio::time::timeout(Duration::from_secs(10), call(false)).await;
    first(next.expect("a bound"));
    assert_eq!(shop.orders().await, 1);
}
