//! The same two promises written by hand in plain sqlx, as a good engineer does who knows the database: no straw man.
//!
//! What is right here, and often is not: the claim is the first statement and is decided by the unique key, so two calls at
//! once cannot both run; the values are bound and the statements prepared once per connection; the answer is read back only
//! on a conflict; claim, order, answer and event are one transaction; the pool does not ping before it lends.
//!
//! What it leaves to the caller, and the attribute does not: a fingerprint, retention, a bound on the wait of a duplicate (it
//! waits in the database, with a connection), a lost acknowledgement of COMMIT, a cancelled BEGIN, a body that ends the
//! transaction, a swallowed SQL error.
//!
//! `folded` is the same with the last two statements in one, which saves a round trip on a database behind a network.

use serde::Serialize;
use sqlx::{Database, Pool, Postgres, Sqlite};

use super::shop::{OrderPlaced, Orders, Receipt};

/// The tables: the same columns that such code has everywhere, and an index by age so that old keys can be deleted.
macro_rules! tables {
    ($bytes:literal, $id:literal, $time:literal, $now:literal) => {
        concat!(
            "create table orders (id ",
            $id,
            ", item text not null);\
             create table idempotency_keys (key text primary key, response ",
            $bytes,
            ", \
                 created_at ",
            $time,
            " not null default ",
            $now,
            ");\
             create index idempotency_keys_created_at on idempotency_keys (created_at);\
             create table events (id ",
            $id,
            ", topic text not null, type text not null, key text not null, \
                 payload ",
            $bytes,
            " not null, created_at ",
            $time,
            " not null default ",
            $now,
            ")"
        )
    };
}

const CLAIM: &str = "insert into idempotency_keys (key) values ($1) on conflict do nothing";
const READ: &str = "select response from idempotency_keys where key = $1";
const RECORD: &str = "update idempotency_keys set response = $2 where key = $1";
const STAGE: &str = "insert into events (topic, type, key, payload) values ($1, $2, $3, $4)";
const RECORD_AND_STAGE: &str = "with staged as (insert into events (topic, type, key, payload) values ($3, $4, $5, $6)) \
     update idempotency_keys set response = $2 where key = $1";

/// How a database is used without the toolkit.
pub trait ByHand: Database {
    const TABLES: &'static str;
    /// How many connections a good engineer gives to the writers. SQLite lets one write at a time: more of them only meet its
    /// busy handler, which sleeps.
    const WRITERS: Option<u32> = None;

    /// (a) The business transaction alone.
    fn bare(pool: &Pool<Self>, item: &str) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// (b) With a claim, a recorded answer and an event.
    fn by_hand(
        pool: &Pool<Self>,
        key: &str,
        item: &str,
    ) -> impl Future<Output = sqlx::Result<Vec<u8>>> + Send;

    /// (b) with the answer and the event in one statement, where the database has one for that.
    fn folded(
        pool: &Pool<Self>,
        key: &str,
        item: &str,
    ) -> impl Future<Output = sqlx::Result<Vec<u8>>> + Send {
        Self::by_hand(pool, key, item)
    }
}

/// The same on both databases but for the way a transaction begins. A generic body would need a list of bounds.
macro_rules! transactions {
    ($begin:ident $($how:literal)?) => {
        async fn bare(pool: &Pool<Self>, item: &str) -> sqlx::Result<()> {
            let mut tx = pool.$begin($($how)?).await?;
            tx.insert(item).await?;
            tx.commit().await
        }

        async fn by_hand(pool: &Pool<Self>, key: &str, item: &str) -> sqlx::Result<Vec<u8>> {
            let mut tx = pool.$begin($($how)?).await?;
            let claimed = sqlx::query(CLAIM).bind(key).execute(&mut *tx).await?;
            if claimed.rows_affected() == 0 {
                // Committed: had it been open, the insert would have waited for it.
                return sqlx::query_scalar(READ).bind(key).fetch_one(&mut *tx).await;
            }
            let order_id = tx.insert(item).await?;
            let response = json(&Receipt::new(order_id, item))?;
            let recorded = sqlx::query(RECORD).bind(key).bind(&response);
            recorded.execute(&mut *tx).await?;
            let staged = sqlx::query(STAGE)
                .bind("orders")
                .bind("order.placed.v1")
                .bind(order_id.to_string())
                .bind(json(&OrderPlaced::new(order_id, item))?);
            staged.execute(&mut *tx).await?;
            tx.commit().await?;
            Ok(response)
        }
    };
}

impl ByHand for Postgres {
    const TABLES: &'static str = tables!(
        "bytea",
        "bigint generated always as identity primary key",
        "timestamptz",
        "now()"
    );

    transactions!(begin);

    async fn folded(pool: &Pool<Self>, key: &str, item: &str) -> sqlx::Result<Vec<u8>> {
        let mut tx = pool.begin().await?;
        let claimed = sqlx::query(CLAIM).bind(key).execute(&mut *tx).await?;
        if claimed.rows_affected() == 0 {
            return sqlx::query_scalar(READ).bind(key).fetch_one(&mut *tx).await;
        }
        let order_id = tx.insert(item).await?;
        let response = json(&Receipt::new(order_id, item))?;
        let recorded = sqlx::query(RECORD_AND_STAGE)
            .bind(key)
            .bind(&response)
            .bind("orders")
            .bind("order.placed.v1")
            .bind(order_id.to_string())
            .bind(json(&OrderPlaced::new(order_id, item))?);
        recorded.execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(response)
    }
}

impl ByHand for Sqlite {
    const TABLES: &'static str = tables!("blob", "integer primary key", "integer", "(unixepoch())");
    const WRITERS: Option<u32> = Some(1);

    // IMMEDIATE: a transaction that reads first and writes later fails at once when another has written meanwhile.
    transactions!(begin_with "begin immediate");
}

fn json(value: &impl Serialize) -> sqlx::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}
