//! Round trips, counted on the wire by a proxy: no clock is involved, every run counts the same.

use std::time::Duration;

use effectively_tests::{Proxy, TestDb, eventually};
use sqlx::{Pool, Postgres};
use tokio::runtime;

use super::duplicates;
use super::variants::{Variant, Variants, create_tables};

/// A call's round trips: until it has answered, and with the ping that sqlx sends when the connection goes back to its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trips {
    pub call: usize,
    pub with_release: usize,
}

/// What was counted.
#[derive(Debug)]
pub struct Wire {
    pub variants: Vec<(Variant, Trips)>,
    /// What a second call adds while the first with its key runs in the same process.
    pub duplicate_here: usize,
    /// The same in another process: it asks, waits for the first to end, and replays.
    pub duplicate_elsewhere: Trips,
    /// … and when it may not wait: 409.
    pub refused_elsewhere: Trips,
}

impl Wire {
    pub fn of(&self, variant: Variant) -> Trips {
        let found = self
            .variants
            .iter()
            .find(|(counted, _)| *counted == variant);
        found.expect("every variant is counted").1
    }

    /// For machines. Calls with the release, as a pool sees them; replays without, as their caller sees them.
    pub fn line(&self) -> String {
        format!(
            "wire: bare={} attribute={} literals={} replay={} replay_known={}",
            self.of(Variant::Bare).with_release,
            self.of(Variant::Attribute).with_release,
            self.of(Variant::Literals).with_release,
            self.of(Variant::Replay).call,
            self.of(Variant::KnownReplay).call,
        )
    }
}

/// Counts on PostgreSQL, on a connection that has made each kind of call before.
///
/// One thread: what sqlx spawns when a connection is released cannot run before the call has been counted.
pub fn count() -> Wire {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let db = TestDb::<Postgres>::new().await;
        create_tables(&db).await;
        Wire {
            variants: variants(&db).await,
            duplicate_here: duplicates::here(&db).await,
            duplicate_elsewhere: duplicates::elsewhere(&db).await,
            refused_elsewhere: duplicates::refused_elsewhere(&db).await,
        }
    })
}

const WARM_UP: usize = 3;
const COUNTED: usize = 5;

async fn variants(db: &TestDb<Postgres>) -> Vec<(Variant, Trips)> {
    let proxy = db.proxy();
    let variants = Variants::new(db, 1, Some(&proxy));
    variants.answer_earlier_keys(0).await;
    let mut counted = Vec::new();
    // Whether a connection is reused is a matter of time: the same call with or without the ping.
    let by_count = |variant: &Variant| *variant != Variant::Reused;
    for variant in Variant::ALL.into_iter().filter(by_count) {
        for _ in 0..WARM_UP {
            variants.call(variant, 0).await;
        }
        let mut trips = Vec::new();
        for _ in 0..COUNTED {
            trips.push(trips_of(&proxy, variants.pool(), variants.call(variant, 0)).await);
        }
        trips.dedup();
        assert_eq!(trips.len(), 1, "{}: {trips:?}", variant.name());
        counted.push((variant, trips[0]));
    }
    counted
}

/// Counts one call on a pool of one connection.
pub async fn trips_of(proxy: &Proxy, pool: &Pool<Postgres>, call: impl Future) -> Trips {
    is_released(pool).await;
    proxy.take_flights();
    call.await;
    let call = proxy.flights();
    is_released(pool).await;
    Trips {
        call,
        with_release: proxy.flights(),
    }
}

async fn is_released(pool: &Pool<Postgres>) {
    let idle = async || pool.size() > 0 && pool.num_idle() == pool.size() as usize;
    eventually(Duration::from_secs(10), idle).await;
}
