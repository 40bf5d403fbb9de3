//! The application under test: a table of orders and a table of events, in the words of all three databases.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use effectively::{
    Call, Dialect, Emit, Envelope, Error, ErrorKind, Event, Failure, Key, Ledger, Outcome,
};
use effectively_tests::{TestDb, TestServer, eventually};
use serde::Serialize;
use sqlx::Connection;

/// A database of the suite that the toolkit works on.
pub trait ShopDb: TestServer + Dialect {}
impl<DB: TestServer + Dialect> ShopDb for DB {}

/// Longer than anything that is waited for; a test that reaches it has failed.
pub const SOON: Duration = Duration::from_secs(20);

#[derive(Debug, Serialize)]
pub struct OrderPlaced {
    pub item: String,
}

impl OrderPlaced {
    pub fn of(item: impl Into<String>) -> Self {
        Self { item: item.into() }
    }
}

impl Event for OrderPlaced {
    const TOPIC: &'static str = "orders";
    const NAME: &'static str = "order.placed.v1";

    fn partition_key(&self) -> Option<Cow<'_, str>> {
        Some(self.item.as_str().into())
    }
}

/// What a body of the suite may fail with.
#[derive(Debug, thiserror::Error)]
pub enum ShopError {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error("the body gave up")]
    GaveUp,
}

pub struct Shop<DB: ShopDb> {
    pub db: TestDb<DB>,
    pub ledger: Ledger<DB>,
    /// How often a body ran in this process.
    pub runs: Arc<AtomicUsize>,
}

impl<DB: ShopDb> Shop<DB> {
    pub async fn open(db: TestDb<DB>) -> Self {
        let ledger = Ledger::new(db.pool().clone());
        ledger.migrate().await.expect("the toolkit's tables");
        db.execute("create table orders (item varchar(100) not null)")
            .await;
        Self::on(db, ledger)
    }

    pub fn on(db: TestDb<DB>, ledger: Ledger<DB>) -> Self {
        Self {
            db,
            ledger,
            runs: Arc::default(),
        }
    }

    /// A ledger as another process has it: another pool, and nothing of this one's memory.
    pub fn elsewhere(&self) -> Ledger<DB> {
        Ledger::new(self.db.pool_with(10, None))
    }

    /// Places an order and emits one event.
    pub async fn order(&self, key: &str) -> Result<Outcome<String>, Failure<ShopError>> {
        self.order_slowly(key, Duration::ZERO).await
    }

    pub async fn order_slowly(
        &self,
        key: &str,
        work: Duration,
    ) -> Result<Outcome<String>, Failure<ShopError>> {
        order_on(&self.ledger, &self.runs, key, work).await
    }

    pub async fn orders(&self) -> i64 {
        self.db.number("select count(*) from orders").await
    }

    pub async fn claims(&self) -> i64 {
        self.db
            .number("select count(*) from effectively_claims")
            .await
    }

    pub async fn events(&self) -> i64 {
        self.db
            .number("select count(*) from effectively_outbox")
            .await
    }

    /// Orders, events, claims.
    pub async fn stored(&self) -> (i64, i64, i64) {
        (
            self.orders().await,
            self.events().await,
            self.claims().await,
        )
    }

    /// Takes every event that is due out of the outbox.
    pub async fn drain(&self) -> Vec<Envelope> {
        let (outbox, mut events) = (self.ledger.outbox(), Vec::new());
        let drained = outbox.drain(async |event| {
            events.push(event.clone());
            Ok::<_, ShopError>(())
        });
        let count = drained.await.expect("a drained outbox");
        assert_eq!(count, events.len() as u64);
        events
    }

    pub fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// Makes a call that ends its own transaction, so that the key is interrupted.
    pub async fn interrupt(&self, key: &str) {
        let end = if DB::NAME == "MySQL" {
            "commit"
        } else {
            "rollback"
        };
        let answer = self
            .ledger
            .run(shop_key(key), async |tx: &mut DB::Connection| {
                DB::execute(tx, end).await?;
                Ok::<_, ShopError>(())
            })
            .await;
        assert_eq!(kind(&answer), Some(ErrorKind::TransactionLost));
    }

    /// Moves every outcome's expiry into the past of the database's clock.
    pub async fn expire(&self) {
        self.db
            .execute(&format!(
                "update effectively_claims set expires_at = {}",
                in_the_past::<DB>()
            ))
            .await;
    }

    /// The next call with the key executes, here and elsewhere: nothing of an earlier one is left.
    pub async fn assert_free(&self, key: &str) {
        let next = order_on(&self.elsewhere(), &self.runs, key, Duration::ZERO).await;
        assert!(!next.expect("the key is free").is_replay());
    }

    /// The next call with the key is refused, here and elsewhere, until an operator releases the key.
    pub async fn assert_interrupted(&self, key: &str) {
        let elsewhere = self.elsewhere();
        let there = order_on(&elsewhere, &self.runs, key, Duration::ZERO).await;
        assert_eq!(kind(&there), Some(ErrorKind::Interrupted), "{there:?}");
        assert_eq!(kind(&self.order(key).await), Some(ErrorKind::Interrupted));
        assert!(
            elsewhere
                .release(&shop_key(key))
                .await
                .expect("a release of the key")
        );
        self.assert_free(key).await;
    }

    /// What whoever borrows each connection next writes outside of a transaction is there for everybody, and no session is
    /// left in a transaction.
    pub async fn assert_healthy(&self) {
        self.db
            .execute("create table if not exists marks (mark int)")
            .await;
        self.db.execute("delete from marks").await;
        // All at once, so that each has a connection of its own.
        let mut borrowed = Vec::new();
        for _ in 0..self.ledger.pool().size().max(1) {
            borrowed.push(self.ledger.pool().acquire().await.expect("a connection"));
        }
        let marks = borrowed.len();
        for mut connection in borrowed {
            let mark = "insert into marks values (1)";
            let written = DB::execute(&mut connection, mark).await;
            written.expect("a write by the next borrower");
            let begun = connection.begin().await;
            let mut tx = begun.expect("a transaction of the next borrower");
            let written = DB::execute(&mut tx, mark).await;
            written.expect("a write in the next borrower's transaction");
            let committed = tx.commit().await;
            committed.expect("a commit by the next borrower");
        }
        let kept = self.db.number("select count(*) from marks").await;
        let written = 2 * marks as i64;
        assert_eq!(kept, written, "a write of the next borrower is lost");
        eventually(SOON, async || match self.db.busy_sessions().await {
            0 => Ok(()),
            busy => Err(format!("{busy} sessions are busy")),
        })
        .await;
    }
}

pub async fn order_on<DB: ShopDb>(
    ledger: &Ledger<DB>,
    runs: &AtomicUsize,
    key: &str,
    work: Duration,
) -> Result<Outcome<String>, Failure<ShopError>> {
    let work = async {
        tokio::time::sleep(work).await;
        Ok(())
    };
    place(ledger.call(shop_key(key)), runs, key, work).await
}

/// One order and one event, with `work` between them. The answer says which run of a body it comes from.
pub async fn place<DB: ShopDb>(
    call: Call<'_, DB>,
    runs: &AtomicUsize,
    item: &str,
    work: impl Future<Output = Result<(), ShopError>>,
) -> Result<Outcome<String>, Failure<ShopError>> {
    call.run_with_events(async |tx: &mut DB::Connection| {
        let run = runs.fetch_add(1, Ordering::SeqCst);
        insert::<DB>(tx, item).await?;
        work.await?;
        Ok(Emit::new(format!("run {run}")).event(OrderPlaced::of(item)))
    })
    .await
}

/// One order of the body.
pub async fn insert<DB: ShopDb>(tx: &mut DB::Connection, item: &str) -> sqlx::Result<()> {
    DB::execute(tx, &format!("insert into orders values ('{item}')"))
        .await
        .map(drop)
}

pub fn shop_key(key: &str) -> Key {
    Key::new("orders", &[&key]).expect("a key")
}

/// The kind of a toolkit error, `None` for a success or an error of the body.
pub fn kind<T, E>(answer: &Result<T, Failure<E>>) -> Option<ErrorKind> {
    match answer {
        Err(Failure::Toolkit(error)) => Some(error.kind().clone()),
        _ => None,
    }
}

pub fn refused<T>(answer: Result<T, Error>) -> ErrorKind {
    answer.map(drop).expect_err("an error").kind().clone()
}

/// A time before now, by the database's clock.
pub fn in_the_past<DB: ShopDb>() -> &'static str {
    match DB::NAME {
        "PostgreSQL" => "now() - interval '1 second'",
        "MySQL" => "utc_timestamp(6) - interval 1 second",
        _ => "cast((julianday('now') - 2440587.5) * 86400000 as integer) - 1000",
    }
}
