//! What a client of an axum server sees: over a real connection, to handlers on the real server of each database.
//!
//! The requests are written byte by byte, since a client library would refuse to send half of them.

// A test that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used)]

mod app;
mod client;
mod hand;

mod errors;
mod failing_bodies;
mod hang_ups;
mod headers;
mod in_flight;
mod no_database;
mod replays;
mod response_types;
