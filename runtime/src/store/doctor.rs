//! What an operator asks of a database: its settings, what is left lying in the tables, the state of one key. Nothing here writes.

use std::{future::Future, time::Duration};

use super::Verbs;
use crate::model::KeyHash;

/// A key whose call ended its own transaction. Only an operator can tell whether its effects happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterruptedKey {
    /// The scope of the key.
    pub scope: String,
    /// What [`Ledger::release_interrupted`](crate::Ledger::release_interrupted) takes: the stored hash of the key.
    pub id: [u8; 32],
    /// When the call began, in seconds since 1970 by the database's clock.
    pub began_at: i64,
}

impl InterruptedKey {
    pub(super) fn of(scope: String, id: Vec<u8>, began_at: i64) -> sqlx::Result<Self> {
        let id = id
            .try_into()
            .map_err(|_| sqlx::Error::Decode("the hash of a key is 32 bytes".into()))?;
        Ok(Self {
            scope,
            id,
            began_at,
        })
    }
}

/// The server behind a pool, as it answers for a session of this pool.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerState {
    /// Its version, in its own words.
    pub version: String,
    /// Settings that decide what a commit is worth, by the server's names for them.
    pub settings: Vec<(String, String)>,
    /// Transactions that have been open for over a minute, oldest first, at most 100. `None`: this user may not ask, or the
    /// database has no such list.
    pub long_transactions: Option<Vec<LongTransaction>>,
    /// How many transactions the oldest snapshot lies behind: so old are the rows that no vacuum can remove. Postgres only.
    pub oldest_snapshot: Option<u64>,
    /// Whether two connections of the pool had one session of the server between them: a pooler that lends sessions for a
    /// transaction at a time, such as PgBouncer. `false` does not mean that there is none.
    pub shares_sessions: bool,
}

impl ServerState {
    /// A setting, by the server's name for it.
    pub fn setting(&self, name: &str) -> Option<&str> {
        let found = self.settings.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A transaction that has been open for long: what it may see cannot be cleaned up. The text of its statements is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LongTransaction {
    /// The server's number of its session.
    pub session: i64,
    /// How long it has been open.
    pub age: Duration,
    /// What the session is doing, in the server's words, for example `idle in transaction`.
    pub state: String,
}

/// What is left lying in the tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftovers {
    /// Claims whose retention is over and that nobody has purged, counted up to 1,000,000.
    pub expired_claims: u64,
    /// Published events that were kept long enough and that nobody has purged, counted up to 1,000,000.
    pub expired_events: u64,
    /// Leases of relays that are not alive: they ended without giving them up.
    pub orphaned_leases: u64,
}

/// What the ledger knows of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyState {
    /// The next call with it executes. A call that is in flight right now is not seen.
    Free,
    /// A call has completed: the next one gets its outcome.
    Complete {
        /// The scope of the key.
        scope: String,
        /// How long the outcome is kept, by the database's clock.
        expires_in: Duration,
        /// The size of the outcome, in bytes.
        outcome_bytes: u64,
    },
    /// A call ended its own transaction. The next one is refused, until an operator releases the key.
    Interrupted {
        /// The scope of the key.
        scope: String,
        /// When that call began, in seconds since 1970 by the database's clock.
        began_at: i64,
    },
}

/// One verb per question. Each is one statement.
#[doc(hidden)]
pub trait DoctorVerbs: Verbs {
    /// Everything but [`ServerState::shares_sessions`]. Needs no tables.
    fn server(
        conn: &mut Self::Connection,
    ) -> impl Future<Output = sqlx::Result<ServerState>> + Send;
    /// The server's number of the session behind this connection. `None`: there is no server.
    fn session(
        conn: &mut Self::Connection,
    ) -> impl Future<Output = sqlx::Result<Option<i64>>> + Send;
    /// Whether the database accepts this statement: the tables, columns and functions that it names are there.
    fn works(conn: &mut Self::Connection, statement: String) -> impl Future<Output = bool> + Send;
    fn leftovers(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
    ) -> impl Future<Output = sqlx::Result<Leftovers>> + Send;
    fn key_state(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        hash: KeyHash,
    ) -> impl Future<Output = sqlx::Result<KeyState>> + Send;
}

/// What the row of a key says: scope, milliseconds until it expires, bytes of the outcome, seconds since 1970.
type Found = (String, i64, Option<i64>, i64);

pub(super) fn state_of(row: Option<Found>) -> KeyState {
    match row {
        Some((scope, _, None, began_at)) => KeyState::Interrupted { scope, began_at },
        Some((scope, left @ 1.., Some(bytes), _)) => KeyState::Complete {
            scope,
            expires_in: super::millis(left),
            outcome_bytes: bytes.unsigned_abs(),
        },
        Some(_) | None => KeyState::Free,
    }
}

pub(super) fn leftovers_of((claims, events, orphaned): (i64, i64, i64)) -> Leftovers {
    Leftovers {
        expired_claims: claims.unsigned_abs(),
        expired_events: events.unsigned_abs(),
        orphaned_leases: orphaned.unsigned_abs(),
    }
}

/// A session of the server: number, age of its transaction in milliseconds, state.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) fn long_of((session, age, state): (i64, i64, String)) -> LongTransaction {
    LongTransaction {
        session,
        age: super::millis(age),
        state,
    }
}
