//! The contract of the order servers (`src/orders/mod.rs`), kept by each of them: one table of tests, run over real connections
//! against the program of every framework.
//!
//! A server is one line of the table in `shop.rs`. Which row of the contract is held by which test stands in `tests/CONTRACT.md`.
//!
//! The requests are written byte by byte, since a client library would refuse to send half of them.

// A test that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used)]

mod client;
mod server;
#[macro_use]
mod shop;

mod failures;
mod grpc;
mod hang_ups;
mod in_flight;
mod keys;
mod kills;
mod logs;
mod no_database;
mod orders;
mod page;
mod processes;
mod replays;
mod unauthorized;
