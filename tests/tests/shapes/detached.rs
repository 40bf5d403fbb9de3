//! `detach`: the call outlives its caller.

use std::sync::Arc;
use std::time::Duration;

use effectively::{ErrorKind, Failure, idempotent};
use effectively_tests::eventually;
use sqlx::SqliteConnection;
use tokio::sync::Notify;

use crate::shop::{AppError, Shop, insert, send};

#[idempotent(key = "{id}", detach)]
async fn slow(
    tx: &mut SqliteConnection,
    id: i64,
    begun: Arc<Notify>,
    go_on: Arc<Notify>,
) -> Result<i64, AppError> {
    insert(tx, id).await?;
    begun.notify_one();
    go_on.notified().await;
    Ok(id)
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_stop_it() {
    let shop = Shop::open().await;
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let caller = tokio::spawn(send(slow(
        shop.ledger.clone(),
        1,
        begun.clone(),
        go_on.clone(),
    )));
    begun.notified().await;
    caller.abort();
    go_on.notify_one();
    eventually(Duration::from_secs(10), async || shop.orders().await == 1).await;
}

#[idempotent(key = "{id}", detach)]
async fn panicking(tx: &mut SqliteConnection, id: i64, panics: bool) -> Result<i64, AppError> {
    insert(tx, id).await?;
    assert!(!panics, "the body's secret");
    Ok(id)
}

#[tokio::test]
async fn a_panic_becomes_an_error_that_tells_nothing_and_frees_the_key() {
    let shop = Shop::open().await;
    let error = send(panicking(shop.ledger.clone(), 1, true))
        .await
        .expect_err("the panic");
    assert!(!format!("{error:?}").contains("secret"));
    assert!(matches!(error, Failure::Toolkit(error) if *error.kind() == ErrorKind::Panicked));
    assert_eq!(shop.orders().await, 0);
    assert!(
        panicking(shop.ledger.clone(), 1, false).await.is_ok(),
        "the key is free"
    );
}
