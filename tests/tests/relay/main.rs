//! What the relay promises, on the real server of each database: at least once, in order, through any failure.

// A test that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used)]

mod collector;
mod shop;

mod delivers;
mod dies;
mod emptied;
mod groups;
mod hangs;
mod keeps;
mod loses_answers;
mod parked;
mod plans;
mod refused;
mod shares;
mod taken_over;
mod unwritten;
mod wakes;
mod watched;
