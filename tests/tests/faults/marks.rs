//! Each run of a body has a mark of its own, and leaves it in the order, in the event and in the answer. So what the database
//! holds tells which runs stayed, how often, and whether one stayed in part.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::Pin;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use effectively::{Emit, Failure, Ledger, Outcome};
use effectively_tests::{TestDb, eventually};
use tokio::sync::Notify;

use crate::shop::{OrderPlaced, Shop, ShopDb, ShopError, shop_key};

pub type Answer = Result<Outcome<String>, Failure<ShopError>>;

/// A call that has not been polled yet.
pub type Call<'a> = Pin<Box<dyn Future<Output = Answer> + 'a>>;

/// How long what a fault left behind may take to go away.
pub const BOUND: Duration = Duration::from_secs(5);

/// What a body does after it placed its order.
#[derive(Clone, Debug)]
pub enum Body {
    Returns,
    Works(Duration),
    GivesUp,
    Panics,
    Aborts,
    Runs(&'static str),
    Stands(Arc<Gate>),
}

/// Where a body stands until the test lets it go on.
#[derive(Debug, Default)]
pub struct Gate {
    reached: Notify,
    open: Notify,
}

impl Gate {
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    pub fn open(&self) {
        self.open.notify_one();
    }

    pub async fn stand(&self) {
        self.reached.notify_one();
        self.open.notified().await;
    }
}

/// A new mark of this key, different from all others in all processes of the test.
pub fn mark_of(key: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{key}#{}.{count}", process::id())
}

pub fn key_of(mark: &str) -> &str {
    mark.split('#').next().unwrap_or(mark)
}

pub async fn order<DB: ShopDb>(ledger: &Ledger<DB>, key: &str, body: Body) -> Answer {
    order_as(ledger, &mark_of(key), body).await
}

pub async fn order_as<DB: ShopDb>(ledger: &Ledger<DB>, mark: &str, body: Body) -> Answer {
    order_with(ledger, mark, async |tx: &mut DB::Connection| {
        body.run::<DB>(tx).await
    })
    .await
}

impl Body {
    pub async fn run<DB: ShopDb>(self, tx: &mut DB::Connection) -> Result<(), ShopError> {
        match self {
            Self::Returns => Ok(()),
            Self::Works(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Self::GivesUp => Err(ShopError::GaveUp),
            // Past the hook of the process: this one is expected, and its backtrace is slow.
            Self::Panics => std::panic::resume_unwind(Box::new("the body panicked")),
            Self::Aborts => process::abort(),
            Self::Runs(sql) => Ok(DB::execute(tx, sql).await.map(drop)?),
            Self::Stands(gate) => {
                gate.stand().await;
                Ok(())
            }
        }
    }
}

/// The call that most tests here make: one order, then `rest`, one event.
pub async fn order_with<DB: ShopDb, F>(ledger: &Ledger<DB>, mark: &str, rest: F) -> Answer
where
    F: AsyncFnOnce(&mut DB::Connection) -> Result<(), ShopError>,
{
    ledger
        .call(shop_key(key_of(mark)))
        .run_with_events(async |tx: &mut DB::Connection| {
            DB::execute(tx, &format!("insert into orders values ('{mark}')")).await?;
            rest(tx).await?;
            Ok(Emit::new(mark.to_owned()).event(OrderPlaced {
                item: mark.to_owned(),
            }))
        })
        .await
}

/// The mark that a call answered with.
pub fn answered<E: Debug>(answer: Result<Outcome<String>, Failure<E>>) -> String {
    let outcome = answer.expect("an answer");
    outcome.into_result().expect("a mark")
}

/// The tables of the suite and of the toolkit, for a test that makes its own ledgers.
pub async fn open<DB: ShopDb>(db: TestDb<DB>) -> TestDb<DB> {
    Shop::open(db).await.db
}

/// What the database holds.
#[derive(Debug)]
pub struct Book {
    pub orders: Vec<String>,
    pub events: Vec<String>,
    /// Of orders: with an outcome, and without one.
    pub claims: (i64, i64),
}

impl Book {
    pub async fn of<DB: ShopDb>(db: &TestDb<DB>) -> Self {
        let claims = async |state| {
            let of_orders = "select count(*) from effectively_claims where scope = 'orders'";
            let count = format!("{of_orders} and outcome is {state}");
            db.number(&count).await
        };
        Self {
            orders: db.texts("select item from orders").await,
            events: db
                .texts("select partition_key from effectively_outbox")
                .await,
            claims: (claims("not null").await, claims("null").await),
        }
    }

    /// I1 and I2: at most one run of each key, and of each run all or nothing.
    pub fn is_whole(&self) -> Result<(), String> {
        let orders: BTreeSet<_> = self.orders.iter().collect();
        let keys: BTreeSet<_> = self.orders.iter().map(|mark| key_of(mark)).collect();
        let doubles = keys.len() < self.orders.len();
        let torn = orders != self.events.iter().collect() || self.events.len() != orders.len();
        let claims = (keys.len() as i64, 0) != self.claims;
        if doubles || torn || claims {
            return Err(format!(
                "doubles: {doubles}, torn: {torn}, other claims: {claims}, in {self:?}"
            ));
        }
        Ok(())
    }

    /// The orders that stayed of this key.
    pub fn orders_of(&self, key: &str) -> Vec<&str> {
        let orders = self.orders.iter().map(String::as_str);
        orders.filter(|mark| key_of(mark) == key).collect()
    }
}

/// The book once nothing moves any more, which must be whole: a torn one would stay so.
pub async fn settled<DB: ShopDb>(db: &TestDb<DB>) -> Book {
    eventually(BOUND, async || db.busy_sessions().await == 0).await;
    eventually(BOUND, async || {
        let book = Book::of(db).await;
        book.is_whole().map(|()| book)
    })
    .await
}
