//! Throughput and latency, in turns: every round runs each variant for a short while, so whatever else the machine does hits
//! all of them alike. Ratios are taken within a round, and the median over the rounds is reported.
//!
//! A closed loop: each client makes its next call when the last has answered. All variants share one pool of
//! [`CONNECTIONS`], so the ping at a connection's release delays nobody with one client, and everybody with sixteen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use effectively_tests::{Proxy, TestDb};
use sqlx::{Postgres, Sqlite};
use tokio::task::JoinSet;

use super::report::Report;
use super::shop::Shop;
use super::variants::{Variant, Variants, create_tables};

const CLIENTS: [u32; 2] = [1, 16];
const CONNECTIONS: u32 = 16;
const ROUNDS: usize = 8;
const SLICE: Duration = Duration::from_millis(300);
const WARM_UP: Duration = Duration::from_millis(150);
/// Each way: 1 ms per round trip.
const ONE_WAY: Duration = Duration::from_micros(500);

/// On SQLite nothing crosses a wire: literals change nothing, every replay looks first, and there is no such statement to fold.
const ON_SQLITE: [Variant; 6] = [
    Variant::Bare,
    Variant::ByHand,
    Variant::Attribute,
    Variant::Reused,
    Variant::PayloadFree,
    Variant::Replay,
];

/// One variant in one round.
#[derive(Debug)]
pub struct Slice {
    pub latencies: Vec<Duration>,
    pub took: Duration,
}

impl Slice {
    pub fn calls_per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }
}

/// One variant in all rounds.
#[derive(Debug)]
pub struct Measured {
    pub variant: Variant,
    pub slices: Vec<Slice>,
}

pub async fn postgres(db: &TestDb<Postgres>) {
    create_tables(db).await;
    on_line(db, None, 1, "directly").await;
    let proxy = db.proxy();
    proxy.delay(ONE_WAY);
    let how = "through a proxy that adds 1 ms per round trip (0.5 ms each way)";
    on_line(db, Some(&proxy), 2, how).await;
}

async fn on_line(db: &TestDb<Postgres>, proxy: Option<&Proxy>, user: i64, how: &str) {
    let variants = Arc::new(Variants::new(db, CONNECTIONS, proxy));
    variants.answer_earlier_keys(user).await;
    let trip = round_trip(&variants).await;
    for clients in CLIENTS {
        let measured = in_turns(&variants, &Variant::ALL, user, clients).await;
        let title = format!(
            "PostgreSQL, {clients} client(s), {how}; SELECT 1 takes {:.2} ms",
            trip.as_secs_f64() * 1000.0
        );
        Report::of_load(&title, &measured).print();
    }
}

pub async fn sqlite(db: &TestDb<Sqlite>) {
    create_tables(db).await;
    let variants = Arc::new(Variants::new(db, CONNECTIONS, None));
    variants.answer_earlier_keys(1).await;
    for clients in CLIENTS {
        let measured = in_turns(&variants, &ON_SQLITE, 1, clients).await;
        let title = format!("SQLite, WAL, synchronous = full, {clients} client(s)");
        Report::of_load(&title, &measured).print();
    }
}

/// The fastest of many, on a connection that has prepared it.
async fn round_trip(variants: &Variants<Postgres>) -> Duration {
    let mut connection = variants.pool().acquire().await.expect("a connection");
    let mut fastest = Duration::MAX;
    for _ in 0..30 {
        let begun = Instant::now();
        sqlx::query("select 1")
            .execute(&mut *connection)
            .await
            .expect("an answer");
        fastest = fastest.min(begun.elapsed());
    }
    fastest
}

async fn in_turns<DB: Shop>(
    variants: &Arc<Variants<DB>>,
    which: &[Variant],
    user: i64,
    clients: u32,
) -> Vec<Measured> {
    // With all connections busy, so that each of them has prepared every statement.
    for variant in which {
        slice(variants, *variant, user, CONNECTIONS, WARM_UP).await;
    }
    let mut measured: Vec<_> = which
        .iter()
        .map(|variant| Measured {
            variant: *variant,
            slices: Vec::new(),
        })
        .collect();
    for round in 0..ROUNDS {
        // Each round begins with another variant: none always follows the same one's last writes.
        for place in 0..which.len() {
            let next = &mut measured[(round + place) % which.len()];
            next.slices
                .push(slice(variants, next.variant, user, clients, SLICE).await);
        }
    }
    measured
}

async fn slice<DB: Shop>(
    variants: &Arc<Variants<DB>>,
    variant: Variant,
    user: i64,
    clients: u32,
    length: Duration,
) -> Slice {
    let begun = Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..clients {
        let variants = Arc::clone(variants);
        calls.spawn(async move {
            let mut latencies = Vec::new();
            while begun.elapsed() < length {
                let called = Instant::now();
                variants.call(variant, user).await;
                latencies.push(called.elapsed());
            }
            latencies
        });
    }
    let latencies = calls.join_all().await.concat();
    Slice {
        latencies,
        took: begun.elapsed(),
    }
}
