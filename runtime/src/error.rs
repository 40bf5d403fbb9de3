//! The one error type: what went wrong ([`ErrorKind`]), what caused it (the source), and whether trying again helps.
//!
//! No variant holds a key, a payload or a token: an error may be logged and sent to a client as it is.

use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

type Source = Box<dyn StdError + Send + Sync + 'static>;

/// An error of the toolkit itself, never of the handler's body.
///
/// Match on [`kind`](Self::kind), or ask [`is_retryable`](Self::is_retryable). In a web framework it answers as RFC 9457
/// problem+json with [`status`](Self::status) and the stable machine [`code`](Self::code).
pub struct Error {
    kind: Box<ErrorKind>,
    source: Option<Source>,
}

/// What went wrong. New kinds may be added in a minor release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request carries no idempotency key.
    #[error(
        "the request has no `Idempotency-Key` header; send one, and the same one on every retry of this operation"
    )]
    KeyMissing,

    /// The idempotency key, or a part of the key template, breaks a rule. Refused before any SQL.
    #[error("{0}")]
    KeyInvalid(KeyProblem),

    /// A scope that is written in the code breaks a rule.
    #[error("a scope must be 1 to 64 characters out of `A-Z a-z 0-9 . _ -`")]
    ScopeInvalid,

    /// Another call with this key is still running.
    #[error(
        "another call with this idempotency key is still running; retry with the same key after a moment"
    )]
    InFlight,

    /// The key was used before with other content.
    #[error(
        "this idempotency key was used before with different content; use a new key for a new operation"
    )]
    Mismatch,

    /// An earlier call with this key ended its own transaction, so it is unknown what it left behind.
    #[error(
        "an earlier call with this idempotency key ended its own transaction and may have left effects behind; \
         an operator has to look and release the key (`Ledger::release`)"
    )]
    Interrupted,

    /// The database could not be had in time. Nothing was done and the key is free.
    #[error("the database is busy or cannot be reached; nothing was done, retry with the same key")]
    Unavailable,

    /// The database refused the commit, so nothing was done and the key is free.
    #[error("the database did not commit; nothing was done, retry with the same key")]
    NotCommitted,

    /// The connection broke while committing and the outcome could not be found out in time.
    #[error(
        "it is unknown whether the call was committed; retry with the same key to learn its outcome"
    )]
    CommitUnknown,

    /// The body ended or lost the transaction that was lent to it.
    #[error(
        "the handler's body ended the transaction that was lent to it, or swallowed an SQL error that ended it; \
         pass SQL errors on with `?`, use `tx.begin()` for a savepoint, and leave COMMIT, ROLLBACK and DDL out"
    )]
    TransactionLost,

    /// The body made its transaction read-only, so that nothing could be recorded.
    #[error(
        "the handler's body made its transaction read-only, so its outcome could not be recorded; nothing was committed and the key is free: \
         leave `SET TRANSACTION READ ONLY` out of the body"
    )]
    TransactionReadOnly,

    /// The body panicked in a detached call.
    #[error("the handler's body panicked; its effects were rolled back and the key is free")]
    Panicked,

    /// An annotated handler was called inside the body of another.
    #[error(
        "an idempotent handler was called inside the body of another: it would wait for itself; call a plain function that takes `tx`"
    )]
    NestedCall,

    /// Two handlers use one scope on the same database.
    #[error(
        "two handlers use the scope `{scope}`: {first} and {second}; give one of them its own `scope = \"…\"`"
    )]
    DuplicateScope {
        /// The scope both use.
        scope: Cow<'static, str>,
        /// Where the handler that was called first is.
        first: &'static str,
        /// Where the handler that was refused is.
        second: &'static str,
    },

    /// The handler's answer is larger than the ledger stores.
    #[error(
        "the handler's answer is {bytes} bytes and more than the {limit} that the ledger stores; return a reference to the data, or raise `max_outcome_bytes` (on MySQL also `max_allowed_packet`)"
    )]
    OutcomeTooLarge {
        /// Size of the answer, in bytes.
        bytes: usize,
        /// The ledger's limit, or the database's where that is smaller, in bytes.
        limit: usize,
    },

    /// The handler's response is a stream, or its body is not all there yet.
    #[error(
        "a streaming response cannot be recorded and replayed; return its bytes, or where it can be fetched"
    )]
    Streaming,

    /// The answer, an event or a fingerprinted value could not be turned into bytes.
    #[error("{0} could not be serialized")]
    Encode(&'static str),

    /// The recorded outcome could not be read back as the type that the handler returns today.
    #[error(
        "the recorded outcome cannot be read as the type that the handler returns now; keep stored types readable for as long as the retention"
    )]
    Decode,

    /// One call returned more events than an attempt can number.
    #[error("a call may return at most {limit} events")]
    TooManyEvents {
        /// The largest number of events of one call.
        limit: usize,
    },

    /// An event, or all events of a call where the database takes them in one message, is larger than the database takes.
    #[error(
        "the events of the call have {bytes} bytes where the database takes at most {limit} at once (an event with its headers; a topic, name or \
         partition key; on Postgres all events and the answer): store large data elsewhere and return a reference, or on MySQL raise `max_allowed_packet`"
    )]
    EventTooLarge {
        /// Size of what is too large, in bytes.
        bytes: usize,
        /// What the database takes, in bytes.
        limit: usize,
    },

    /// The toolkit's tables are missing.
    #[error("the tables of the toolkit are missing in this database; run `Ledger::migrate`")]
    TablesMissing,

    /// The toolkit's tables are of another version than this library.
    #[error(
        "the tables of the toolkit are at version {found}, this library needs {needed}; run `Ledger::migrate` of the newest version in use"
    )]
    SchemaVersion {
        /// The version found in the database.
        found: i64,
        /// The version this library works with.
        needed: i64,
    },

    /// The database user may not do what the toolkit needs. Nothing was committed.
    #[error(
        "the database user lacks a right on {on}; the table in \"Rights\" of the guide lists what a handler, a relay and a migration need"
    )]
    RightsMissing {
        /// The table or routine, without its prefix, as far as the database names it.
        on: &'static str,
    },

    /// SQLite does not enforce foreign keys on this connection, and the toolkit's commit gate is one.
    #[error(
        "SQLite foreign keys are off on this connection; open the pool with `SqliteConnectOptions::foreign_keys(true)`, the default of sqlx"
    )]
    ForeignKeysOff,

    /// MySQL or MariaDB writes its binary log as statements, which cannot hold a transaction below repeatable read.
    #[error(
        "the server's `binlog_format = STATEMENT` does not allow transactions at read committed; set it to `ROW` or `MIXED`, or ask for `isolation = \"repeatable read\"`"
    )]
    StatementBinlog,

    /// A setting breaks a rule. Refused where it is given, or by the call that uses it, before any SQL.
    #[error("{0}")]
    Settings(&'static str),

    /// Any other failure of the database before the body ran or after it ended. Nothing was committed.
    #[error("the database failed outside the handler's body; nothing was committed")]
    Database,

    /// A part of a relay panicked, so the relay ended. What it had not settled is published again.
    #[error(
        "a part of the relay panicked, so the relay has ended; what it had not settled is published again by the next one: \
         build a relay and run it again"
    )]
    RelayStopped,

    /// A relay has other routes for topics of this one, so it is not clear which of the two an event is for.
    #[error(
        "a relay with the routes {others} is alive, which have topics in common with {routes}; give both relays the same \
         routes, or routes without a common topic"
    )]
    RoutesOverlap {
        /// The topics of the relay that was refused, a JSON list.
        routes: String,
        /// The topics of the relay that was there first.
        others: String,
    },

    /// A migration of the toolkit's tables failed.
    #[error("the tables of the toolkit could not be migrated")]
    Migrate,
}

/// Which rule an idempotency key, or a part of one, breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyProblem {
    /// The header is not an RFC 8941 string.
    #[error(
        "the `Idempotency-Key` header must be one RFC 8941 string in double quotes, for example \"8e03978e-40d5-43dd-bc93-6894a57f9324\""
    )]
    NotAString,
    /// A part is empty.
    #[error("part {part} of the idempotency key is empty")]
    Empty {
        /// The part's place in the key, counted from 1.
        part: usize,
    },
    /// A part is too long.
    #[error("part {part} of the idempotency key is longer than 255 bytes")]
    TooLong {
        /// The part's place in the key, counted from 1.
        part: usize,
    },
    /// A part holds NUL or another control character.
    #[error("part {part} of the idempotency key holds a control character")]
    ControlCharacter {
        /// The part's place in the key, counted from 1.
        part: usize,
    },
    /// A key without any part would be the same for all calls.
    #[error("an idempotency key needs at least one part")]
    NoParts,
}

impl Error {
    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Whether the same call with the same key may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        use ErrorKind::*;
        matches!(
            *self.kind,
            InFlight | Unavailable | NotCommitted | CommitUnknown
        )
    }

    /// How long a client should wait before it retries; `None` when retrying does not help.
    pub fn retry_after(&self) -> Option<Duration> {
        self.is_retryable().then_some(Duration::from_secs(1))
    }

    /// The HTTP status this error answers with (draft-ietf-httpapi-idempotency-key-header-07, section 2.7, for 400, 409, 422).
    pub fn status(&self) -> u16 {
        use ErrorKind::*;
        match *self.kind {
            KeyMissing | KeyInvalid(_) => 400,
            InFlight | Interrupted => 409,
            Mismatch => 422,
            Unavailable | NotCommitted | CommitUnknown => 503,
            _ => 500,
        }
    }

    /// A stable name for machines, the `code` member of the problem document.
    pub fn code(&self) -> &'static str {
        use ErrorKind::*;
        match *self.kind {
            KeyMissing => "idempotency_key_missing",
            KeyInvalid(_) => "idempotency_key_invalid",
            ScopeInvalid => "scope_invalid",
            InFlight => "idempotency_key_in_flight",
            Mismatch => "idempotency_key_mismatch",
            Interrupted => "idempotency_key_interrupted",
            Unavailable => "database_unavailable",
            NotCommitted => "not_committed",
            CommitUnknown => "commit_unknown",
            TransactionLost => "transaction_lost",
            TransactionReadOnly => "transaction_read_only",
            Panicked => "handler_panicked",
            NestedCall => "nested_call",
            DuplicateScope { .. } => "duplicate_scope",
            OutcomeTooLarge { .. } => "outcome_too_large",
            Streaming => "response_streaming",
            Encode(_) => "encode_failed",
            Decode => "decode_failed",
            EventTooLarge { .. } => "event_too_large",
            TooManyEvents { .. } => "too_many_events",
            TablesMissing => "tables_missing",
            SchemaVersion { .. } => "schema_version",
            RightsMissing { .. } => "rights_missing",
            ForeignKeysOff => "foreign_keys_off",
            StatementBinlog => "statement_binlog",
            Settings(_) => "settings_invalid",
            Database => "database_failed",
            RelayStopped => "relay_stopped",
            RoutesOverlap { .. } => "routes_overlap",
            Migrate => "migration_failed",
        }
    }

    pub(crate) fn caused_by(kind: ErrorKind, source: impl Into<Source>) -> Self {
        Self {
            kind: Box::new(kind),
            source: Some(source.into()),
        }
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self {
            kind: Box::new(kind),
            source: None,
        }
    }
}

impl From<KeyProblem> for Error {
    fn from(problem: KeyProblem) -> Self {
        ErrorKind::KeyInvalid(problem).into()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("message", &self.to_string())
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
