//! One suite, three databases: what the toolkit promises, shown on the real server of each.
//!
//! A file's name is a promise, its tests say it in sentences.

// A test that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used)]

mod bad_body;
mod held;
mod shop;

mod effects_once;
mod expiry;
mod fence;
mod fingerprint;
mod identity;
mod isolation;
mod logs;
mod lost;
mod migrations;
mod names;
mod nesting;
mod operator;
mod outbox;
mod postgres;
mod purge;
mod refusals;
mod replay;
mod reuse;
mod rights;
mod savepoint;
mod schemas;
mod session;
mod settings;
mod sizes;
mod swallowed;
mod unkeyed;
mod wait;
