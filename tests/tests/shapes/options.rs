//! What the options do to a call.

use std::sync::atomic::{AtomicU32, Ordering};
use std::{borrow::Cow, error::Error as StdError, fmt};

use effectively::{ErrorKind, Failure, Ledger, idempotent};
use sqlx::error::{DatabaseError, ErrorKind as SqlKind};
use sqlx::{Sqlite, SqliteConnection};

use crate::shop::{AppError, Place, Receipt, Shop, insert, send, twice};

#[idempotent(key = "{cmd.id}", fingerprint(cmd.lines, extra), retention = "7d", wait = "0s", isolation = "repeatable read")]
async fn fingerprinted(
    tx: &mut SqliteConnection,
    cmd: Place,
    extra: &str,
) -> Result<usize, AppError> {
    insert(tx, cmd.id).await?;
    Ok(extra.len())
}

#[tokio::test]
async fn other_content_under_the_same_key_is_refused() {
    let shop = Shop::open().await;
    twice(|| send(fingerprinted(shop.ledger.clone(), Place::of(1), "a"))).await;
    let error = fingerprinted(shop.ledger.clone(), Place::of(1), "b")
        .await
        .expect_err("a mismatch");
    assert!(matches!(error, Failure::Toolkit(error) if *error.kind() == ErrorKind::Mismatch));
}

#[idempotent(key = "{id}", on_error = "record")]
async fn refusing(
    tx: &mut SqliteConnection,
    id: i64,
    error: AppError,
) -> Result<Receipt, AppError> {
    insert(tx, id).await?;
    Err(error)
}

#[idempotent(
    key = "{id}",
    scope = "options.refusing_plainly",
    on_error = "record",
    transparent
)]
async fn refusing_plainly(
    tx: &mut SqliteConnection,
    id: i64,
    error: AppError,
) -> Result<Receipt, AppError> {
    insert(tx, id).await?;
    Err(error)
}

#[tokio::test]
async fn a_final_refusal_is_replayed_and_its_writes_are_gone() {
    let shop = Shop::open().await;
    let call = || send(refusing(shop.ledger.clone(), 1, AppError::SoldOut));
    let (first, second) = (
        call().await.expect("a refusal"),
        call().await.expect("a refusal"),
    );
    assert_eq!((first.is_replay(), second.is_replay()), (false, true));
    assert_eq!(first.recorded(), second.recorded());
    let Err(Failure::Handler(refused)) = second.into_result() else {
        panic!("a refusal is no receipt")
    };
    assert_eq!(refused.recorded().status(), Some(409));
    assert!(matches!(refused.into_error(), Ok(AppError::SoldOut)));
    assert_eq!(shop.orders().await, 0);

    let plainly = || send(refusing_plainly(shop.ledger.clone(), 1, AppError::SoldOut));
    assert!(matches!(plainly().await, Err(AppError::SoldOut)));
    assert!(
        matches!(plainly().await, Err(AppError::SoldOut)),
        "from its recorded form"
    );
}

#[tokio::test]
async fn a_refusal_that_asks_for_a_retry_frees_the_key() {
    let shop = Shop::open().await;
    for _ in 0..2 {
        let error = refusing(shop.ledger.clone(), 1, AppError::WarehouseDown)
            .await
            .expect_err("the body's error");
        assert!(matches!(error, Failure::Handler(AppError::WarehouseDown)));
    }
    assert_eq!(shop.orders().await, 0);
}

#[idempotent(key = "{id}", retries = 3)]
async fn conflicting(
    tx: &mut SqliteConnection,
    id: i64,
    conflicts: u32,
    runs: &AtomicU32,
    mut text: String,
) -> Result<String, AppError> {
    insert(tx, id).await?;
    text.push('!');
    if runs.fetch_add(1, Ordering::SeqCst) < conflicts {
        return Err(sqlx::Error::Database(Box::new(Busy)).into());
    }
    Ok(text)
}

#[tokio::test]
async fn a_conflict_runs_the_body_again_with_bindings_of_its_own() {
    let shop = Shop::open().await;
    let runs = AtomicU32::new(0);
    let outcome = send(conflicting(shop.ledger.clone(), 1, 3, &runs, "a".into()))
        .await
        .expect("the fourth run succeeds");
    assert_eq!(outcome.into_result().expect("a text"), "a!");
    assert_eq!((runs.load(Ordering::SeqCst), shop.orders().await), (4, 1));

    let runs = AtomicU32::new(0);
    let error = conflicting(shop.ledger.clone(), 2, 9, &runs, "a".into())
        .await
        .expect_err("the conflict");
    assert!(matches!(error, Failure::Handler(AppError::Database(_))));
    assert_eq!((runs.load(Ordering::SeqCst), shop.orders().await), (4, 1));
}

#[idempotent(key = "{id}")]
async fn outer(
    tx: &mut SqliteConnection,
    ledger: &Ledger<Sqlite>,
    id: i64,
) -> Result<bool, AppError> {
    assert!(
        effectively::guard::inside_claim() && effectively::guard::refuse_inside_claim().is_err()
    );
    insert(tx, id).await?;
    let nested = inner(ledger.clone(), id).await.expect_err("a nested call");
    Ok(matches!(nested, Failure::Toolkit(error) if *error.kind() == ErrorKind::NestedCall))
}

#[idempotent(key = "{id}")]
async fn inner(tx: &mut SqliteConnection, id: i64) -> Result<(), AppError> {
    insert(tx, id).await?;
    Ok(())
}

#[tokio::test]
async fn a_handler_inside_another_is_refused() {
    let shop = Shop::open().await;
    assert_eq!(
        twice(|| send(outer(shop.ledger.clone(), &shop.ledger, 1))).await,
        (true, true)
    );
    assert!(!effectively::guard::inside_claim());
    assert_eq!(shop.orders().await, 1);
}

/// What SQLite answers when a snapshot is too old to write.
#[derive(Debug)]
struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("database is locked")
    }
}

impl StdError for Busy {}

impl DatabaseError for Busy {
    fn message(&self) -> &str {
        "database is locked"
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        Some("517".into())
    }

    fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> SqlKind {
        SqlKind::Other
    }
}
