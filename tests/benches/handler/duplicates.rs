//! Duplicates of a call that is still running, counted on the wire.

use std::time::Duration;

use effectively::{ErrorKind, Failure, Key, Ledger};
use effectively_tests::{Proxy, TestDb, eventually};
use sqlx::pool::PoolOptions;
use sqlx::{PgConnection, Postgres};
use tokio::join;
use tokio::sync::Notify;

use super::shop::Orders;
use super::wire::{Trips, trips_of};

const PATIENT: Duration = Duration::from_secs(10);

/// What a duplicate adds to the first call, when both are in one process.
pub async fn here(db: &TestDb<Postgres>) -> usize {
    let process = Process::start(db).await;
    let alone = process.trips(process.order("alone", PATIENT, None)).await;
    let body = Body::default();
    let both = process.trips(async {
        let first = process.order("here", PATIENT, Some(&body));
        let second = async {
            body.begun.notified().await;
            // The second is polled first, so it waits for the first when that may go on.
            let second = process.order("here", PATIENT, None);
            join!(second, async { body.goes_on.notify_one() }).0
        };
        let (first, second) = join!(first, second);
        assert!(!first.expect("the first answer") && second.expect("a replay"));
    });
    both.await.with_release - alone.with_release
}

/// A duplicate in another process, which asks, waits for the first call to end, and replays.
pub async fn elsewhere(db: &TestDb<Postgres>) -> Trips {
    let (here, elsewhere) = (Process::start(db).await, Process::start(db).await);
    let body = Body::default();
    let second = async {
        body.begun.notified().await;
        let second = elsewhere.trips(async {
            let answer = elsewhere.order("elsewhere", PATIENT, None).await;
            assert!(answer.expect("a replay"));
        });
        let first_goes_on = async {
            let waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted \
                 and database = (select oid from pg_database where datname = current_database())";
            eventually(PATIENT, async || db.number(waits).await == 1).await;
            body.goes_on.notify_one();
        };
        join!(second, first_goes_on).0
    };
    let (first, trips) = join!(here.order("elsewhere", PATIENT, Some(&body)), second);
    assert!(!first.expect("the first answer"));
    trips
}

/// A duplicate in another process that may not wait: it is refused.
pub async fn refused_elsewhere(db: &TestDb<Postgres>) -> Trips {
    let (here, elsewhere) = (Process::start(db).await, Process::start(db).await);
    let body = Body::default();
    let second = async {
        body.begun.notified().await;
        let refused = async {
            let answer = elsewhere.order("refused", Duration::ZERO, None).await;
            assert!(
                matches!(answer, Err(Failure::Toolkit(error)) if *error.kind() == ErrorKind::InFlight)
            );
        };
        let trips = elsewhere.trips(refused).await;
        body.goes_on.notify_one();
        trips
    };
    let (first, trips) = join!(here.order("refused", PATIENT, Some(&body)), second);
    assert!(!first.expect("the first answer"));
    trips
}

/// What happens in a body that the counting waits for.
#[derive(Debug, Default)]
struct Body {
    begun: Notify,
    goes_on: Notify,
}

/// As good as a process: a ledger, which is all that a process knows, with a pool and a line of its own.
struct Process {
    proxy: Proxy,
    ledger: Ledger<Postgres>,
}

impl Process {
    async fn start(db: &TestDb<Postgres>) -> Self {
        let proxy = db.proxy();
        let options = PoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false);
        let ledger = Ledger::new(db.pool_from(options, Some(&proxy)));
        let process = Self { proxy, ledger };
        for time in 0..3 {
            let key = format!("{} {time}", process.proxy.address());
            process.order(&key, PATIENT, None).await.expect("an answer");
        }
        process
    }

    /// Whether the answer is a replay.
    async fn order(
        &self,
        key: &str,
        wait: Duration,
        body: Option<&Body>,
    ) -> Result<bool, Failure<sqlx::Error>> {
        let key = Key::new("duplicates", &[&key]).expect("a key");
        let call = self.ledger.call(key).wait(wait);
        let answer = call.run(async |tx: &mut PgConnection| {
            let order_id = tx.insert("pears").await?;
            if let Some(body) = body {
                body.begun.notify_one();
                body.goes_on.notified().await;
            }
            Ok(order_id)
        });
        Ok(answer.await?.is_replay())
    }

    async fn trips(&self, call: impl Future) -> Trips {
        trips_of(&self.proxy, self.ledger.pool(), call).await
    }
}
