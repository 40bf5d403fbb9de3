//! The form without macros.

use effectively::{Emit, ErrorKind, Failure, Key, Ledger, Outcome};
use sqlx::{Sqlite, SqliteConnection};

use crate::shop::{AppError, Placed, Receipt, Shop, insert, send, twice};

async fn place(
    ledger: &Ledger<Sqlite>,
    id: i64,
    log: &(dyn Fn(i64) + Send + Sync),
) -> Result<Outcome<Receipt>, Failure<AppError>> {
    let key = Key::new("run.place", &[&id])?;
    ledger
        .run(key, async |tx: &mut SqliteConnection| {
            log(id);
            insert(tx, id).await?;
            Ok(Receipt { id })
        })
        .await
}

async fn place_with_events(
    ledger: &Ledger<Sqlite>,
    id: i64,
    note: &str,
) -> Result<Outcome<Receipt>, Failure<AppError>> {
    let key = Key::new("run.place_with_events", &[&id])?;
    ledger
        .call(key)
        .fingerprint(&(id, note))?
        .run_with_events(async |tx: &mut SqliteConnection| {
            insert(&mut *tx, id).await?;
            insert(tx, id).await?;
            Ok(Emit::new(Receipt { id }).event(Placed { id }))
        })
        .await
}

#[tokio::test]
async fn a_closure_runs_once_per_key() {
    let shop = Shop::open().await;
    assert_eq!(
        twice(|| send(place(&shop.ledger, 1, &|_| {}))).await.1,
        Receipt { id: 1 }
    );
    twice(|| send(place_with_events(&shop.ledger, 1, "a"))).await;
    assert_eq!((shop.orders().await, shop.events().await), (3, 1));

    let error = place_with_events(&shop.ledger, 1, "b")
        .await
        .expect_err("a mismatch");
    assert!(matches!(error, Failure::Toolkit(error) if *error.kind() == ErrorKind::Mismatch));
}

#[tokio::test]
async fn an_error_of_the_body_frees_the_key() {
    let shop = Shop::open().await;
    let key = || Key::new("run", &[&"k"]).expect("a key");
    let error = shop
        .ledger
        .run(key(), async |tx: &mut SqliteConnection| {
            insert(tx, 1).await?;
            Err::<Receipt, _>(AppError::SoldOut)
        })
        .await
        .expect_err("the body's error");
    assert!(matches!(error, Failure::Handler(AppError::SoldOut)) && !error.is_retryable());
    assert_eq!(shop.orders().await, 0);
    let again = shop
        .ledger
        .run(
            key(),
            async |_: &mut SqliteConnection| Ok::<_, AppError>(()),
        )
        .await;
    assert!(!again.expect("a fresh call").is_replay());
}
