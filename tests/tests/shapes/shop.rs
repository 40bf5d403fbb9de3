//! The application that the handlers belong to.

use effectively::{Conflict, Event, Failure, Ledger, Outcome, Recorded, Refusal};
use effectively_tests::TestDb;
use serde::{Deserialize, Serialize};
use sqlx::{Sqlite, SqliteConnection};

pub struct Shop {
    pub db: TestDb<Sqlite>,
    pub ledger: Ledger<Sqlite>,
}

impl Shop {
    pub async fn open() -> Self {
        let db = TestDb::new().await;
        let ledger = Ledger::new(db.pool().clone());
        ledger.migrate().await.expect("the toolkit's tables");
        db.execute("create table orders (id integer not null)")
            .await;
        Self { db, ledger }
    }

    /// How many orders were written, in all.
    pub async fn orders(&self) -> i64 {
        self.db.number("select count(*) from orders").await
    }

    /// How many events wait.
    pub async fn events(&self) -> i64 {
        self.db
            .number("select count(*) from effectively_outbox")
            .await
    }
}

/// What every handler's body does: one order.
pub async fn insert(tx: &mut SqliteConnection, id: i64) -> sqlx::Result<()> {
    sqlx::query("insert into orders values (?)")
        .bind(id)
        .execute(tx)
        .await
        .map(drop)
}

/// A handler's future must be `Send`: frameworks spawn it.
pub fn send<T: Send>(future: T) -> T {
    future
}

/// The values of two calls of which the second must be a replay.
pub async fn twice<R, M, E, F>(call: impl Fn() -> F) -> (R, R)
where
    F: Future<Output = Result<Outcome<R>, Failure<E>>>,
    R: effectively::Replay<M>,
    E: std::fmt::Debug,
{
    let (first, second) = (
        call().await.expect("the first call"),
        call().await.expect("the second call"),
    );
    assert!(!first.is_replay() && second.is_replay());
    assert_eq!(first.recorded(), second.recorded());
    (
        first.into_result().expect("a response"),
        second.into_result().expect("the same response"),
    )
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    pub id: i64,
    pub lines: (i64, i64),
}

impl Place {
    pub fn of(id: i64) -> Self {
        Self { id, lines: (1, 2) }
    }

    pub fn number(&self) -> i64 {
        self.id
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    pub id: i64,
}

#[derive(Debug, Serialize, Event)]
#[event(topic = "orders", name = "order.placed.v1", key = "{id}")]
pub struct Placed {
    pub id: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Toolkit(#[from] effectively::Error),
    #[error("sold out")]
    SoldOut,
    #[error("the warehouse does not answer")]
    WarehouseDown,
}

impl Conflict for AppError {
    fn database_error(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) => Some(error),
            _ => None,
        }
    }
}

impl Refusal for AppError {
    fn refusal(&self) -> Option<Recorded> {
        match self {
            Self::SoldOut => Recorded::json_refusal(409, "sold out"),
            Self::WarehouseDown => Recorded::json_refusal(503, "try later"),
            Self::Database(_) | Self::Toolkit(_) => None,
        }
    }

    fn from_refusal(_: &Recorded) -> Option<Self> {
        Some(Self::SoldOut)
    }
}
