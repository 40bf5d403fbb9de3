//! The suites that adapters must pass, for those who write one of their own.

pub mod sink;
