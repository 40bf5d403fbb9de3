//! Failover: what callers were told stays true when a standby takes over, or when a node leaves its cluster, on servers that the tests
//! start and kill.

// A test that cannot go on says why and stops.
#![allow(clippy::expect_used)]

#[allow(dead_code)] // The other suites use the rest of it, here and below.
#[path = "../faults/deliveries.rs"]
mod deliveries;
#[allow(dead_code)]
#[path = "../faults/history.rs"]
mod history;
#[allow(dead_code)]
#[path = "../faults/marks.rs"]
mod marks;
#[allow(dead_code)]
#[path = "../faults/mixed_work.rs"]
mod mixed_work;
#[allow(dead_code)]
#[path = "../faults/payments.rs"]
mod payments;
#[allow(dead_code)]
#[path = "../conformance/shop.rs"]
mod shop;

mod cluster;
mod load;
mod standby;
