//! The round-trip budget, held by the counts of the benchmark `handler`. Speeds are printed there, and never asserted.

#![allow(clippy::expect_used, clippy::large_futures)]

#[path = "../benches/handler"]
mod handler {
    pub mod by_hand;
    pub mod duplicates;
    pub mod shop;
    pub mod variants;
    pub mod wire;
}

use effectively_tests::available;
use handler::variants::Variant;
use handler::wire::{self, Trips};
use sqlx::Postgres;

#[test]
fn a_call_stays_within_its_round_trips() {
    if !available::<Postgres>() {
        return;
    }
    let wire = wire::count();
    let trips = |call, with_release| Trips { call, with_release };

    let bare = wire.of(Variant::Bare);
    assert_eq!(
        bare,
        trips(3, 4),
        "BEGIN, the order, COMMIT; the pool's ping"
    );
    assert_eq!(wire.of(Variant::PayloadFree), bare);
    assert_eq!(wire.of(Variant::Literals), bare);
    assert_eq!(wire.of(Variant::Attribute), trips(4, 5), "a bound outcome");
    assert_eq!(
        wire.of(Variant::Replay),
        trips(2, 3),
        "the claim, the holder"
    );
    assert_eq!(wire.of(Variant::KnownReplay), trips(1, 2), "the holder");

    assert_eq!(wire.duplicate_here, 0, "it waits in memory");
    assert_eq!(wire.refused_elsewhere, trips(2, 3));
    // Two looks, and BEGIN with the wait and ROLLBACK between them; each gives its connection back.
    assert_eq!(wire.duplicate_elsewhere, trips(8, 9));

    assert_eq!(
        wire.line(),
        "wire: bare=4 attribute=5 literals=4 replay=2 replay_known=1"
    );
}
