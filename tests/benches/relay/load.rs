//! An open loop: calls come at their times, whether or not the earlier ones have answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use effectively::sink::Sink;
use effectively::{Envelope, Ledger};
use serde::Deserialize;
use sqlx::Postgres;
use tokio::task::JoinSet;

use super::limit::Row;
use super::sinks::{Produce, Watched};
use super::{running, shop};

const TASKS: usize = 16;
/// The number of the calls before the first, which have no place in the times.
const WARM_UP: u64 = u64::MAX;
/// Of each task. PostgreSQL decides with the sixth execution on a connection how it plans a statement from then on.
const WARM_UP_CALLS: u64 = 10;
/// What is not published so long after the last call is missing.
const PATIENCE: Duration = Duration::from_secs(30);

/// When each event was committed, which is when its call returned, and when the sink had it. In nanoseconds since the
/// beginning; 0: not yet.
pub struct Times {
    /// Events in a second, one in each call.
    rate: u64,
    begun: Instant,
    committed: Vec<AtomicU64>,
    published: Vec<AtomicU64>,
    /// Answers of the sink, those to the warm-up and to repeats included.
    seen: AtomicU64,
}

impl Times {
    pub fn new(rate: u64, length: Duration) -> Arc<Self> {
        let of_each = || {
            (0..rate * length.as_secs())
                .map(|_| AtomicU64::new(0))
                .collect()
        };
        Arc::new(Self {
            rate,
            begun: Instant::now(),
            committed: of_each(),
            published: of_each(),
            seen: AtomicU64::new(0),
        })
    }

    /// The sink, noting when it has answered.
    pub fn of<S: Sink>(self: &Arc<Self>, sink: S) -> impl Sink + use<S> {
        let times = Arc::clone(self);
        Watched::new(sink, move |event: &Envelope| {
            times.arrived(number(&event.data));
        })
    }

    /// The bare loop's producer, noting the same.
    pub fn of_producer<P: Produce>(self: &Arc<Self>, producer: P) -> impl Produce + use<P> {
        Noting {
            producer,
            times: Arc::clone(self),
        }
    }

    fn arrived(&self, number: u64) {
        self.note(&self.published, number);
        self.seen.fetch_add(1, Ordering::Relaxed);
    }

    fn note(&self, times: &[AtomicU64], number: u64) {
        let place = usize::try_from(number).ok();
        let Some(time) = place.and_then(|place| times.get(place)) else {
            return;
        };
        let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // A repeat is not news.
        let _ = time.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// When the first call was committed, and what was between commit and sink of the events that were published between
    /// these two times after it; sorted. An event that is published before its call returns has waited for nothing.
    pub fn lags(&self, from: Duration, to: Duration) -> Vec<Duration> {
        let nanos = |time: &AtomicU64| Duration::from_nanos(time.load(Ordering::Relaxed));
        let first = self.committed.iter().map(nanos).min().unwrap_or_default();
        let pairs = self.committed.iter().zip(&self.published);
        let mut lags: Vec<_> = pairs
            .map(|(committed, published)| (nanos(committed), nanos(published)))
            .filter(|(_, published)| (first + from..first + to).contains(published))
            .map(|(committed, published)| published.saturating_sub(committed))
            .collect();
        lags.sort_unstable();
        lags
    }

    /// How many are missing.
    pub fn missing(&self) -> usize {
        let missing = |time: &&AtomicU64| time.load(Ordering::Relaxed) == 0;
        self.published.iter().filter(missing).count()
    }
}

#[derive(Deserialize)]
struct Numbered {
    number: u64,
}

fn number(data: &[u8]) -> u64 {
    let placed: Numbered = serde_json::from_slice(data).expect("an order");
    placed.number
}

struct Noting<P> {
    producer: P,
    times: Arc<Times>,
}

impl<P: Produce> Produce for Noting<P> {
    async fn produce(&mut self, rows: Vec<Row>) {
        let numbers: Vec<u64> = rows.iter().map(|row| number(&row.5)).collect();
        self.producer.produce(rows).await;
        for number in numbers {
            self.times.arrived(number);
        }
    }
}

/// Makes the calls and waits for their events; answers how many calls a second there were, which is the rate unless the
/// database is too slow for it.
pub async fn run(ledger: &Ledger<Postgres>, times: &Arc<Times>) -> f64 {
    warm_up(ledger, times).await;
    let rate = offer(ledger, times).await;
    arrive(times).await;
    rate
}

/// From 16 tasks.
async fn offer(ledger: &Ledger<Postgres>, times: &Arc<Times>) -> f64 {
    let calls = times.committed.len() as u64;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS as u64 {
        let (ledger, times) = (ledger.clone(), Arc::clone(times));
        tasks.spawn(async move {
            for number in (task..calls).step_by(TASKS) {
                let due = begun + Duration::from_nanos(number * 1_000_000_000 / times.rate);
                tokio::time::sleep_until(due.into()).await;
                shop::emit_one(&ledger, number).await;
                times.note(&times.committed, number);
            }
        });
    }
    tasks.join_all().await;
    calls as f64 / begun.elapsed().as_secs_f64()
}

/// Opens a connection for each task, and waits until the relay has been through what that took. An open loop that opens its
/// connections while the calls come measures, in the first second, a server that starts 16 processes.
async fn warm_up(ledger: &Ledger<Postgres>, times: &Arc<Times>) {
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let ledger = ledger.clone();
        tasks.spawn(async move {
            for _ in 0..WARM_UP_CALLS {
                shop::emit_one(&ledger, WARM_UP).await;
            }
        });
    }
    tasks.join_all().await;
    let all = TASKS as u64 * WARM_UP_CALLS;
    running::until(async || times.seen.load(Ordering::Relaxed) >= all).await;
}

/// Waits until all are published, or for a while.
async fn arrive(times: &Times) {
    let end = Instant::now() + PATIENCE;
    while times.missing() > 0 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
