//! What a relay in the same process takes from the handlers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use effectively::{Ledger, Relay};
use effectively_tests::TestDb;
use sqlx::Postgres;
use tokio::task::JoinSet;

use super::report::{Summary, median, table};
use super::running::{self, Running};
use super::shop;
use super::sinks::{Count, Memory};

const CLIENTS: usize = 16;
const ROUNDS: usize = 12;
/// Long beside what only its beginning costs: after TRUNCATE every session plans its statements anew.
const SLICE: Duration = Duration::from_secs(3);

struct Bench {
    db: TestDb<Postgres>,
    ledger: Ledger<Postgres>,
    number: Arc<AtomicU64>,
}

/// One round with a relay.
struct Beside {
    calls: f64,
    moved: f64,
    left: u64,
}

pub async fn measure(summary: &mut Summary) {
    let db = TestDb::<Postgres>::new().await;
    let bench = Bench {
        ledger: shop::open(&db).await,
        db,
        number: Arc::default(),
    };
    // Opens the connections.
    bench.calls(SLICE / 2).await;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        if round % 2 == 0 {
            alone.push(bench.without_relay().await);
            beside.push(bench.with_relay().await);
        } else {
            beside.push(bench.with_relay().await);
            alone.push(bench.without_relay().await);
        }
    }
    let ratios = beside
        .iter()
        .zip(&alone)
        .map(|(beside, alone)| beside.calls / alone);
    let ratio = median(ratios.collect());
    let of = |value: fn(&Beside) -> f64| median(beside.iter().map(value).collect());
    let rows = [
        vec![
            "none".to_owned(),
            format!("{:.0}", median(alone)),
            String::new(),
            String::new(),
        ],
        vec![
            "beside".to_owned(),
            format!("{:.0}", of(|round| round.calls)),
            format!("{:.0}", of(|round| round.moved)),
            format!("{:.0}", of(|round| round.left as f64)),
        ],
    ];
    table(
        &format!(
            "A handler (claim and one event), {CLIENTS} clients in a closed loop, without and with a relay to memory in the same \
             process and on the same pool, PostgreSQL: medians of {ROUNDS} rounds of {SLICE:?}; ratio {ratio:.2}"
        ),
        &["relay", "calls/s", "events moved/s", "left at the end"],
        &rows,
    );
    summary
        .lines
        .push(format!("handler: with_relay_ratio={ratio:.2}"));
}

impl Bench {
    async fn without_relay(&self) -> f64 {
        self.empty().await;
        self.calls(SLICE).await
    }

    async fn with_relay(&self) -> Beside {
        self.empty().await;
        let count = Count::default();
        let relay = Relay::builder(self.ledger.clone()).route("*", count.of(Memory));
        let relay = Running::start(relay);
        running::spread(&self.ledger, 1).await;
        let begun = Instant::now();
        let calls = self.calls(SLICE).await;
        let moved = count.now() as f64 / begun.elapsed().as_secs_f64();
        let left = self.ledger.outbox().pending().await.expect("a count");
        relay.stop().await;
        Beside { calls, moved, left }
    }

    /// All rounds begin with the same tables.
    async fn empty(&self) {
        let sql = "truncate effectively_outbox, effectively_claims";
        self.db.execute(sql).await;
        self.db.execute("checkpoint").await;
    }

    /// Calls per second.
    async fn calls(&self, length: Duration) -> f64 {
        let begun = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (ledger, number) = (self.ledger.clone(), Arc::clone(&self.number));
            clients.spawn(async move {
                let mut calls = 0_u64;
                while begun.elapsed() < length {
                    shop::emit_one(&ledger, number.fetch_add(1, Ordering::Relaxed)).await;
                    calls += 1;
                }
                calls
            });
        }
        let calls: u64 = clients.join_all().await.into_iter().sum();
        calls as f64 / begun.elapsed().as_secs_f64()
    }
}
