//! The application that is measured, with the attribute. Every variant inserts one order, answers with a receipt of some 60
//! bytes of JSON and leaves one event of the same size.

use std::borrow::Cow;

use effectively::{Dialect, Emit, Event, TxParam, idempotent, outbox};
use effectively_tests::TestServer;
use serde::{Deserialize, Serialize};
use sqlx::Database;

use super::by_hand::ByHand;

/// A database that is measured.
pub trait Shop: TestServer + Dialect + ByHand + Database<Connection: Orders<Db = Self>> {}

impl<DB: TestServer + Dialect + ByHand + Database<Connection: Orders<Db = DB>>> Shop for DB {}

/// The business transaction, word for word the same in every variant.
pub trait Orders: TxParam<Db: Dialect> + Send {
    fn insert(&mut self, item: &str) -> impl Future<Output = sqlx::Result<i64>> + Send;
}

macro_rules! orders {
    ($($connection:ident)*) => {$(
        impl Orders for sqlx::$connection {
            async fn insert(&mut self, item: &str) -> sqlx::Result<i64> {
                sqlx::query_scalar("insert into orders (item) values ($1) returning id")
                    .bind(item)
                    .fetch_one(self)
                    .await
            }
        }
    )*};
}
orders!(PgConnection SqliteConnection);

#[derive(Debug, Serialize, Deserialize)]
pub struct Receipt {
    pub order_id: i64,
    pub item: String,
    pub state: String,
}

impl Receipt {
    pub fn new(order_id: i64, item: &str) -> Self {
        Self {
            order_id,
            item: item.to_owned(),
            state: "accepted".to_owned(),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct OrderPlaced {
    pub order_id: i64,
    pub item: String,
    pub state: &'static str,
}

impl OrderPlaced {
    pub fn new(order_id: i64, item: &str) -> Self {
        Self {
            order_id,
            item: item.to_owned(),
            state: "accepted",
        }
    }
}

impl Event for OrderPlaced {
    const TOPIC: &'static str = "orders";
    const NAME: &'static str = "order.placed.v1";

    fn partition_key(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Owned(self.order_id.to_string()))
    }
}

#[idempotent(key = "{user}/{request}")]
#[outbox]
pub async fn place_order<C: Orders>(
    tx: &mut C,
    user: i64,
    request: &str,
    item: &str,
) -> Result<Emit<Receipt>, sqlx::Error> {
    let order_id = tx.insert(item).await?;
    Ok(Emit::new(Receipt::new(order_id, item)).event(OrderPlaced::new(order_id, item)))
}

/// Nothing to store but that it happened.
#[idempotent(key = "{user}/{request}")]
pub async fn note_order<C: Orders>(
    tx: &mut C,
    user: i64,
    request: &str,
    item: &str,
) -> Result<(), sqlx::Error> {
    tx.insert(item).await.map(drop)
}
