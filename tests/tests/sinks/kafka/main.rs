//! The sinks of Kafka against the conformance suite, and the traps of Kafka.

// A test that cannot go on says why and stops.
#![allow(clippy::expect_used)]

mod idempotent;
mod server;
mod transactional;
