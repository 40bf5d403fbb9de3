//! A crate may forbid every lint: an expansion then can neither break one nor allow it, since `#[allow]` is an error there.

#![forbid(
    clippy::all,
    keyword_idents,
    let_underscore,
    nonstandard_style,
    refining_impl_trait,
    rust_2018_idioms,
    unused,
    absolute_paths_not_starting_with_crate,
    explicit_outlives_requirements,
    meta_variable_misuse,
    missing_debug_implementations,
    missing_docs,
    redundant_imports,
    redundant_lifetimes,
    single_use_lifetimes,
    trivial_casts,
    trivial_numeric_casts,
    unit_bindings,
    unnameable_types,
    unreachable_pub,
    unsafe_code,
    unused_import_braces,
    unused_lifetimes,
    unused_qualifications,
    unused_results,
    variant_size_differences
)]

use effectively::{Emit, Event, IdempotencyKey, KeyPart, Ledger, handlers, idempotent, outbox};
use serde::{Serialize, Serializer};
use sqlx::{Sqlite, SqliteConnection};

use crate::shop::{AppError, Shop, insert, twice};

#[derive(Debug, Clone, Copy, KeyPart)]
struct Number(i64);

#[derive(Debug, Event)]
#[event(topic = "orders", name = "order.placed.v1", key = "{id}/{owner()}")]
struct Placed {
    id: i64,
}

impl Placed {
    fn owner(&self) -> &'static str {
        let _ = self.id;
        "ann"
    }
}

impl Serialize for Placed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.id)
    }
}

#[idempotent(key = "{id}")]
async fn plain(tx: &mut SqliteConnection, id: i64) -> Result<(), AppError> {
    insert(tx, id).await?;
    Ok(())
}

/// The trait that other parts of a key need is of no use here.
#[idempotent(key = "{key}", shared_by_all)]
async fn only_a_callers_key(
    tx: &mut SqliteConnection,
    key: IdempotencyKey,
) -> Result<(), AppError> {
    drop(key);
    insert(tx, 1).await?;
    Ok(())
}

#[outbox]
#[idempotent(
    key = "order:{number}/{unused}",
    fingerprint(also_unused),
    retries = 2,
    on_error = "record",
    isolation = "serializable",
    transparent
)]
async fn run_again(
    tx: &mut SqliteConnection,
    number: Number,
    mut count: i64,
    unused: i64,
    also_unused: &str,
) -> Result<Emit<i64>, AppError> {
    count += 1;
    insert(tx, number.0).await?;
    Ok(Emit::new(count).event(Placed { id: number.0 }))
}

#[idempotent(key = "{id}", detach, wait = "1s", retention = "1h")]
#[outbox]
async fn detached(
    tx: &mut SqliteConnection,
    id: i64,
    with: String,
) -> Result<Vec<Placed>, AppError> {
    drop(with);
    insert(tx, id).await?;
    Ok(vec![Placed { id }])
}

#[outbox(retries = 1)]
async fn without_a_key(tx: &mut SqliteConnection, id: i64) -> Result<Option<Placed>, AppError> {
    insert(tx, id).await?;
    Ok(Some(Placed { id }))
}

#[derive(Debug)]
struct Service {
    ledger: Ledger<Sqlite>,
}

#[handlers(from = self.ledger)]
impl Service {
    #[idempotent(key = "{id}")]
    async fn method(&self, tx: &mut SqliteConnection, id: i64) -> Result<i64, AppError> {
        insert(tx, id).await?;
        Ok(id)
    }
}

pub(crate) async fn call_all(shop: &Shop) {
    let ledger = || shop.ledger.clone();
    let service = Service { ledger: ledger() };
    let ((), ()) = twice(|| plain(ledger(), 1)).await;
    let key = || IdempotencyKey::new("k").expect("a key");
    let ((), ()) = twice(|| only_a_callers_key(ledger(), key())).await;
    let ((), ()) = twice(|| detached(ledger(), 2, String::new())).await;
    assert_eq!(twice(|| service.method(3)).await, (3, 3));
    for _ in 0..2 {
        let count = run_again(ledger(), Number(4), 0, 1, "a").await;
        assert_eq!(count.expect("a count"), 1);
    }
    let events = without_a_key(ledger(), 5).await;
    events.expect("an event");
}
