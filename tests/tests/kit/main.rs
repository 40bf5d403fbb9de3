//! The kit's own tests: a proxy that loses nothing or a worker that cannot be killed would make every other test pass.

#![allow(clippy::expect_used)]

mod bounds;
mod databases;
mod logs;
mod proxy;
mod worker;
