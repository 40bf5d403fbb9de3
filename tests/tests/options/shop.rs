//! The application: orders in three databases, behind its own trait of queries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use effectively::{
    Conflict, Dialect, Envelope, Error, ErrorKind, Event, Failure, Ledger, Outcome, Recorded,
    Refusal, TxParam,
};
use effectively_tests::{TestDb, TestServer};
use serde::Serialize;
use sqlx::{Database, MySql, MySqlConnection, PgConnection, Postgres, Sqlite, SqliteConnection};
use tokio::sync::Semaphore;

/// Longer than anything that is waited for; a test that reaches it has failed.
pub const SOON: Duration = Duration::from_secs(20);

/// What the application asks its databases for.
pub trait Orders: TxParam<Db: Dialect> + Send + 'static {
    fn run(&mut self, sql: &str) -> impl Future<Output = sqlx::Result<u64>> + Send;

    fn count(&mut self, sql: &str) -> impl Future<Output = sqlx::Result<i64>> + Send;

    fn text(&mut self, sql: &str) -> impl Future<Output = sqlx::Result<String>> + Send;

    fn insert(&mut self, item: &str) -> impl Future<Output = sqlx::Result<()>> + Send {
        let sql = format!("insert into orders values ('{item}')");
        async move { self.run(&sql).await.map(drop) }
    }
}

macro_rules! orders {
    ($($connection:ident of $database:ident)*) => {$(
        impl Orders for $connection {
            async fn run(&mut self, sql: &str) -> sqlx::Result<u64> {
                $database::execute(self, sql).await
            }

            async fn count(&mut self, sql: &str) -> sqlx::Result<i64> {
                $database::number(self, sql).await
            }

            async fn text(&mut self, sql: &str) -> sqlx::Result<String> {
                Ok($database::texts(self, sql).await?.concat())
            }
        }
    )*};
}
orders! {
    PgConnection of Postgres
    MySqlConnection of MySql
    SqliteConnection of Sqlite
}

/// A database that the shop is open on.
pub trait ShopDb: TestServer + Dialect + Database<Connection: Orders<Db = Self>> {}
impl<DB: TestServer + Dialect + Database<Connection: Orders<Db = DB>>> ShopDb for DB {}

#[derive(Debug, Serialize, Event)]
#[event(topic = "orders", name = "order.placed.v1", key = "{item}")]
pub struct Placed {
    pub item: String,
}

impl Placed {
    pub fn of(item: impl Into<String>) -> Self {
        Self { item: item.into() }
    }
}

/// What a handler may fail with.
#[derive(Debug, thiserror::Error)]
pub enum ShopError {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error(transparent)]
    Toolkit(#[from] Error),
    #[error("sold out")]
    SoldOut,
    #[error("the warehouse does not answer")]
    WarehouseDown,
}

impl Conflict for ShopError {
    fn database_error(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Sql(error) => Some(error),
            _ => None,
        }
    }
}

impl Refusal for ShopError {
    fn refusal(&self) -> Option<Recorded> {
        match self {
            Self::SoldOut => Recorded::json_refusal(409, "sold out"),
            Self::WarehouseDown => Recorded::json_refusal(503, "later"),
            Self::Sql(_) | Self::Toolkit(_) => None,
        }
    }

    fn from_refusal(recorded: &Recorded) -> Option<Self> {
        (recorded.status() == Some(409)).then_some(Self::SoldOut)
    }
}

pub struct Shop<DB: ShopDb> {
    pub db: TestDb<DB>,
    pub ledger: Ledger<DB>,
}

impl<DB: ShopDb> Shop<DB> {
    pub async fn open(db: TestDb<DB>) -> Self {
        let ledger = Ledger::new(db.pool().clone());
        ledger.migrate().await.expect("the toolkit's tables");
        db.execute("create table orders (item varchar(100) not null)")
            .await;
        Self { db, ledger }
    }

    pub fn ledger(&self) -> Ledger<DB> {
        self.ledger.clone()
    }

    /// A ledger as another process has it: another pool, and nothing of this one's memory.
    pub fn elsewhere(&self) -> Ledger<DB> {
        Ledger::new(self.db.pool_with(5, None))
    }

    pub async fn orders(&self) -> i64 {
        self.db.number("select count(*) from orders").await
    }

    /// Orders, events, claims.
    pub async fn stored(&self) -> (i64, i64, i64) {
        let events = "select count(*) from effectively_outbox";
        let claims = "select count(*) from effectively_claims";
        let events = self.db.number(events).await;
        (self.orders().await, events, self.db.number(claims).await)
    }

    /// Takes every event that is due out of the outbox.
    pub async fn drain(&self) -> Vec<Envelope> {
        let (outbox, mut events) = (self.ledger.outbox(), Vec::new());
        let drained = outbox.drain(async |event| {
            events.push(event.clone());
            Ok::<_, ShopError>(())
        });
        drained.await.expect("a drained outbox");
        events
    }
}

/// A place in a body at which the test stands: it sees that the body is there, and lets it go on.
#[derive(Clone)]
pub struct Stop {
    entered: Arc<Semaphore>,
    opened: Arc<Semaphore>,
    runs: Arc<AtomicUsize>,
}

impl Stop {
    pub fn closed() -> Self {
        Self {
            entered: Arc::new(Semaphore::new(0)),
            opened: Arc::new(Semaphore::new(0)),
            runs: Arc::default(),
        }
    }

    /// Only counts.
    pub fn open() -> Self {
        let stop = Self::closed();
        stop.let_go();
        stop
    }

    /// In the body: counts the run, and waits until the test lets it go.
    pub async fn here(&self) {
        self.runs.fetch_add(1, Ordering::SeqCst);
        self.entered.add_permits(1);
        drop(self.opened.acquire().await);
    }

    /// In the test: until a body is there that was not seen before.
    pub async fn entered(&self) {
        let entered = self.entered.acquire().await;
        entered.expect("never closed").forget();
    }

    /// Lets the body go, and all later ones.
    pub fn let_go(&self) {
        self.opened.add_permits(1 << 20);
    }

    /// How many bodies came by.
    pub fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

/// A handler's future must be `Send`: frameworks spawn it.
pub fn send<T: Send>(future: T) -> T {
    future
}

/// The kind of a toolkit error, `None` for a success or an error of the body.
pub fn kind<T, E>(answer: &Result<T, Failure<E>>) -> Option<ErrorKind> {
    match answer {
        Err(Failure::Toolkit(error)) => Some(error.kind().clone()),
        _ => None,
    }
}

/// An answer that the body has just given.
#[track_caller]
pub fn first<R, E: std::fmt::Debug>(answer: Result<Outcome<R>, Failure<E>>) -> Outcome<R> {
    let outcome = answer.expect("a first answer");
    assert!(!outcome.is_replay(), "the body ran");
    outcome
}

/// An answer from what is recorded.
#[track_caller]
pub fn replay<R, E: std::fmt::Debug>(answer: Result<Outcome<R>, Failure<E>>) -> Outcome<R> {
    let outcome = answer.expect("a replay");
    assert!(outcome.is_replay(), "the body did not run");
    outcome
}
