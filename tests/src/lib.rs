//! The kit that the tests and benchmarks of this workspace stand on.
//!
//! | what | for |
//! |---|---|
//! | [`on_every_database!`] | one generic test, run on PostgreSQL, MySQL/MariaDB and SQLite |
//! | [`TestDb`] | a database of its own for each test, on each of them |
//! | [`Proxy`] | the network between: delay, round trips counted on the wire, lost replies and requests, silence |
//! | [`Worker`] | the test's second process: talk to it, kill it, set its clock |
//! | [`eventually`], [`cancel_after`], [`poll_times`] | waiting with a bound, and giving up at a chosen point |
//! | [`LogCapture`] | everything that was logged, to be searched |
//! | [`rows`], [`NamedTest`] | a page of documentation that says which test holds what |
//!
//! The kit knows sqlx and nothing of the toolkit under test: a mistake there cannot hide here.
//!
//! ```
//! use effectively_tests::{TestDb, TestServer, on_every_database};
//!
//! on_every_database!(a_fresh_database_is_empty);
//! async fn a_fresh_database_is_empty<DB: TestServer>(db: TestDb<DB>) {
//!     db.execute("create table orders (id bigint primary key)").await;
//!     assert_eq!(db.number("select count(*) from orders").await, 0);
//! }
//! # fn main() {}
//! ```

// A test that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used)]

mod bounds;
mod db;
mod logs;
mod matrix;
mod pages;
mod proxy;
mod server;
mod worker;

pub use bounds::{Answer, cancel_after, eventually, poll_times};
pub use db::TestDb;
pub use logs::LogCapture;
pub use matrix::{available, is_given, is_set, run};
pub use pages::{NamedTest, rows};
pub use proxy::Proxy;
pub use server::{Disposal, OptionsOf, TestServer, is_mariadb, process_list};
pub use worker::Worker;

// The macros name it by this path, so that a test file needs no import for them.
#[doc(hidden)]
pub use sqlx;
