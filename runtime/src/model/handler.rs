//! What the attributes say about a handler, fixed while compiling.

use std::time::Duration;

/// The options of one annotated handler. Generated code makes it; every field is an option of `#[idempotent]`.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Handler {
    pub scope: &'static str,
    /// The function and where it stands, for the message about two handlers with one scope.
    pub place: &'static str,
    /// `None`: the ledger's default.
    pub retention: Option<Duration>,
    /// `None`: the ledger's default.
    pub wait: Option<Duration>,
    pub isolation: Isolation,
    pub on_error: OnError,
    /// How often the body may run again after a serialization failure or a deadlock.
    pub retries: u8,
}

/// Isolation level of the transaction that a call runs in.
///
/// SQLite runs every writing transaction serializable, whatever is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// `READ COMMITTED`, the default.
    #[default]
    ReadCommitted,
    /// `REPEATABLE READ`.
    RepeatableRead,
    /// `SERIALIZABLE`.
    Serializable,
}

/// What becomes of the key when the body returns an error.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnError {
    /// Everything is rolled back and the key is free again.
    #[default]
    Release,
    /// An error that calls itself final is recorded and replayed; the body's writes are rolled back.
    Record,
}
