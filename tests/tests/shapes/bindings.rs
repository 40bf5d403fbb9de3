//! What a signature and a body may look like.

use effectively::{Dialect, TxParam, idempotent};
use futures_util::TryStreamExt;
use sqlx::{Connection, PgConnection, SqliteConnection};

use crate::shop::{AppError, Place, Receipt, Shop, insert, send, twice};

#[idempotent(key = "{cmd.lines.0}-{a}")]
async fn patterns(
    tx: &mut SqliteConnection,
    mut cmd: Place,
    (a, mut b): (i64, i64),
    Place {
        id,
        lines: (_, second),
    }: Place,
    log: &(dyn Fn(&str) + Send + Sync),
    _: u8,
) -> Result<i64, AppError> {
    cmd.id += 1;
    b += 1;
    log("placed");
    insert(tx, cmd.id).await?;
    Ok(a + b + id + second)
}

#[idempotent(key = "{name}")]
async fn lifetimes<'a>(
    tx: &'a mut SqliteConnection,
    name: &'a str,
    other: &str,
) -> Result<String, AppError>
where
    'a: 'a,
{
    insert(tx, 1).await?;
    Ok(format!("{name}{other}"))
}

// The names of the expansion's own locals, and items that it must not see.
#[idempotent(key = "{key}/{parts}/{ledger}")]
async fn own_names(
    tx: &mut SqliteConnection,
    key: i64,
    parts: i64,
    ledger: i64,
    handler: i64,
) -> Result<i64, AppError> {
    struct Key;
    const HANDLER: i64 = 4;
    let (claim, end, returned, early, turns, fingerprint) = (1, 2, 3, 4, 5, 6);
    let _ = Key;
    insert(tx, key).await?;
    Ok(key
        + parts
        + ledger
        + handler
        + HANDLER
        + claim
        + end
        + returned
        + early
        + turns
        + fingerprint)
}

#[idempotent(key = "{id}")]
async fn busy_body(tx: &mut SqliteConnection, id: i64) -> Result<i64, AppError> {
    if id == 0 {
        return Ok(0);
    }
    {
        let mut savepoint = tx.begin().await?;
        insert(&mut savepoint, id).await?;
        savepoint.commit().await?;
    }
    let mut ids = Vec::new();
    {
        let mut rows = sqlx::query_scalar::<_, i64>("select id from orders").fetch(&mut *tx);
        while let Some(id) = rows.try_next().await? {
            ids.push(id);
        }
    }
    let first = || -> Option<i64> { Some(*ids.first()? + 1) };
    let mut add = async |by: i64| {
        sqlx::query_scalar::<_, i64>("select ? + 1")
            .bind(by)
            .fetch_one(&mut *tx)
            .await
    };
    let added = add(first().unwrap_or_default()).await?;
    let (left, right) = tokio::join!(async { added }, async { 1 });
    for step in 0..3 {
        if step == 2 {
            break;
        }
    }
    tokio::select! {
        biased;
        done = insert(tx, left) => done?,
        () = std::future::pending() => return Err(AppError::SoldOut),
    }
    Ok(left + right)
}

#[idempotent(key = "{id}")]
async fn boxed_error(
    tx: &mut SqliteConnection,
    id: i64,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    insert(tx, id).await?;
    Ok(())
}

#[idempotent(key = "{id}", scope = "bindings.generic")]
async fn generic<T, const N: usize>(
    tx: &mut SqliteConnection,
    id: i64,
    extra: [T; N],
    f: impl Fn(T) -> i64 + Send,
) -> Result<i64, AppError>
where
    T: Send + Copy,
{
    insert(tx, id).await?;
    Ok(extra.map(f).iter().sum())
}

/// One handler for several databases: the queries that differ are a trait of the application.
trait Orders: TxParam<Db: Dialect> + Send {
    fn insert(&mut self, id: i64) -> impl Future<Output = sqlx::Result<()>> + Send;
}

impl Orders for SqliteConnection {
    async fn insert(&mut self, id: i64) -> sqlx::Result<()> {
        insert(self, id).await
    }
}

impl Orders for PgConnection {
    async fn insert(&mut self, id: i64) -> sqlx::Result<()> {
        sqlx::query("insert into orders values ($1)")
            .bind(id)
            .execute(self)
            .await
            .map(drop)
    }
}

#[idempotent(key = "{cmd.id}")]
async fn portable<C: Orders>(tx: &mut C, cmd: Place) -> Result<Receipt, AppError> {
    tx.insert(cmd.id).await?;
    Ok(Receipt { id: cmd.id })
}

#[tokio::test]
async fn any_pattern_lifetime_and_body_works() {
    let shop = Shop::open().await;
    let ledger = || shop.ledger.clone();
    let (log, name) = (|_: &str| {}, String::from("b"));
    assert_eq!(
        twice(|| send(patterns(
            ledger(),
            Place::of(1),
            (1, 2),
            Place::of(3),
            &log,
            0
        )))
        .await,
        (9, 9)
    );
    twice(|| send(lifetimes(ledger(), "a", &name))).await;
    assert_eq!(
        twice(|| send(own_names(ledger(), 1, 2, 3, 4))).await,
        (35, 35)
    );
    assert_eq!(twice(|| send(busy_body(ledger(), 0))).await, (0, 0));
    twice(|| send(busy_body(ledger(), 5))).await;
    twice(|| send(boxed_error(ledger(), 1))).await;
    assert_eq!(
        twice(|| send(generic(ledger(), 1, [1, 2], |x: i8| x.into()))).await,
        (3, 3)
    );
    assert_eq!(shop.orders().await, 7);
}

#[tokio::test]
async fn one_handler_serves_several_databases() {
    let shop = Shop::open().await;
    twice(|| {
        send(portable::<SqliteConnection>(
            shop.ledger.clone(),
            Place::of(1),
        ))
    })
    .await;
    let postgres = |ledger: effectively::Ledger<sqlx::Postgres>| {
        send(portable::<PgConnection>(ledger, Place::of(1)))
    };
    let _ = postgres;
    assert_eq!(shop.orders().await, 1);
}
