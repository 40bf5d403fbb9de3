//! The suites that adapters must pass, for those who write one of their own.

mod events;
pub mod sink;
