//! Every shape of function that a handler can have: it compiles, its future is `Send`, and it does what its attributes say.
//!
//! On SQLite. What differs between databases is tested by the other suites, what must not compile in `tests/tests/ui`.

// A test that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used)]

mod shop;

mod attributes;
mod axum;
mod bindings;
mod detached;
mod keys;
mod methods;
mod options;
mod run;
mod strict;
