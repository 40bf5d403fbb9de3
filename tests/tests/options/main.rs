//! What the attributes promise, and what each of their options does, when they run: on the real server of each database.
//!
//! The handlers are generic over their connection, with the application's own trait of queries. A file is an option, its tests
//! say the promise in sentences.

// A test that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used)]

mod shop;

mod detach;
mod events;
mod fingerprint;
mod from;
mod isolation;
mod nesting;
mod on_error;
mod order_of_attributes;
mod outbox_alone;
mod outside_calls;
mod retention;
mod retries;
mod scope;
mod shared_by_all;
mod transparent;
mod wait;
