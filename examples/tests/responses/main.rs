//! What a handler may return in actix-web, poem and salvo: each comes back as it went, or is refused before anything is committed.
//!
//! For axum the same stands in `tests/tests/axum_http/response_types.rs`. Here every framework has one file with the same handlers,
//! served by its own server in the test's process; the assertions stand once, in `tests.rs`.

// A test that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used)]

mod actix;
#[path = "../../../tests/tests/axum_http/client.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod client;
mod poem;
mod salvo;
mod shop;
mod tests;
