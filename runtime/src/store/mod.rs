//! The only room with SQL. One dialect per database, with the same files and the same verbs; the engine knows no statement.

use std::{
    error::Error as _,
    future::Future,
    sync::{Arc, LazyLock},
    time::Duration,
};

use sqlx::{Database, Pool};
use sqlx_core::transaction::TransactionManager;

use crate::{
    error::{Error, ErrorKind},
    model::{Attempt, Envelope, Fingerprint, Isolation, KeyHash, Staged},
};

mod doctor;
mod hex;
mod identity;
mod leases;
mod limits;
mod migrate;
#[cfg(feature = "mysql")]
mod mysql;
mod names;
#[cfg(feature = "postgres")]
mod postgres;
mod relay;
mod schema;
#[cfg(feature = "sqlite")]
mod sqlite;
mod topics;

pub(crate) use self::{
    doctor::DoctorVerbs,
    identity::{Identity, IdentityVerbs},
    leases::{Fence, Lease, LeaseVerbs, Member, Pulse},
    limits::Limits,
    migrate::{SCHEMA_VERSION, migrate},
    names::{GivenNames, Names, Spelling, Statement},
    relay::{Due, Postponed, RelayVerbs},
    schema::{FoundSchema, SchemaVerbs, VERSION},
};
pub use self::{
    doctor::{InterruptedKey, KeyState, Leftovers, LongTransaction, ServerState},
    identity::ScopeUse,
    leases::LeaseState,
    relay::{Backlog, DeadLetter},
};

/// A database that the toolkit works on: [`sqlx::Postgres`], [`sqlx::MySql`] (also MariaDB) and [`sqlx::Sqlite`].
///
/// Sealed: its verbs are the toolkit's own. Write `C: TxParam<Db: Dialect>` for a handler that serves several databases.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a database that `effectively` works on",
    note = "it works on `sqlx::Postgres`, `sqlx::MySql` and `sqlx::Sqlite`, each behind the feature `postgres`, `mysql` or `sqlite`"
)]
pub trait Dialect: Verbs + LeaseVerbs + RelayVerbs + DoctorVerbs + IdentityVerbs {}

impl<DB: Verbs + LeaseVerbs + RelayVerbs + DoctorVerbs + IdentityVerbs> Dialect for DB {}

/// A claim to be written, the first statement of a call's transaction.
#[cfg_attr(
    not(feature = "postgres"),
    allow(dead_code, reason = "Postgres alone reads all of it")
)]
#[derive(Debug, Clone, Copy)]
pub struct NewClaim<'a> {
    pub(crate) hash: KeyHash,
    pub(crate) scope: &'a str,
    pub(crate) attempt: Attempt,
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) retention: Duration,
    pub(crate) isolation: Isolation,
    /// Whether the body may have to be rolled back while the claim stays, to record a refusal.
    pub(crate) savepoint: bool,
    /// Whether the holder was seen expired, so that its row is deleted first, if it still is.
    pub(crate) takeover: bool,
}

/// What the row of a key says, read after its transaction ended.
#[derive(Debug)]
pub struct Holder {
    pub(crate) attempt: Attempt,
    pub(crate) fingerprint: Option<Fingerprint>,
    /// `None`: the call ended its own transaction, the key is interrupted.
    pub(crate) outcome: Option<Vec<u8>>,
    /// By the database's clock. An interrupted key never expires.
    pub(crate) expired: bool,
}

/// The end of a call: the claim gets its outcome, the events their rows, and all is committed.
#[cfg_attr(
    not(feature = "postgres"),
    allow(dead_code, reason = "Postgres alone reads all of it")
)]
#[derive(Debug)]
pub struct Completion<'a> {
    /// `None` for `#[outbox]` alone, which claims no key.
    pub(crate) claim: Option<(KeyHash, &'a [u8])>,
    pub(crate) attempt: Attempt,
    /// A final refusal: the body's writes are rolled back to the savepoint first.
    pub(crate) refused: bool,
    pub(crate) events: &'a [Staged],
    pub(crate) traceparent: Option<&'a str>,
    /// Whether outcome and events may travel as text in the message that commits.
    pub(crate) literals: bool,
    pub(crate) limits: Limits,
    /// How long the answer to COMMIT is waited for over a network, which may have gone silent.
    pub(crate) patience: Duration,
}

impl Completion<'_> {
    fn event_ids(&self) -> impl Iterator<Item = uuid::Uuid> {
        (0..=u16::MAX)
            .map(|ordinal| self.attempt.event_id(ordinal))
            .take(self.events.len())
    }
}

/// Why a call could not be completed.
#[derive(Debug)]
pub enum Unfinished {
    /// The transaction is not ours any more, and something written after it ended may have stayed.
    Lost,
    /// The transaction failed under the body, which swallowed the error. Nothing stays.
    Aborted(sqlx::Error),
    /// The body made the transaction read-only. Nothing stays.
    ReadOnly(sqlx::Error),
    /// COMMIT was not sent, or the server answered that it failed. Nothing stays.
    NotCommitted(sqlx::Error),
    /// COMMIT may have been executed.
    Unknown(sqlx::Error),
}

/// What an error of the database means to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Serialization failure or deadlock: the same work may succeed when run again.
    Conflict,
    /// The connection is gone: another one may work.
    Disconnected,
    /// The connection leads to a server that takes no writes, after a failover perhaps: a new one may lead to the right one.
    WrongServer,
    /// The database cannot be had in time.
    Unavailable,
    /// Our tables are not there.
    TablesMissing,
    /// MySQL only: the binary log cannot take what the isolation allows.
    StatementBinlog,
    /// The user may not do it.
    Forbidden,
    /// SQLite only: the gate would not hold.
    ForeignKeysOff,
    /// Anything else.
    Other,
}

/// One verb per thing the engine does to the database. Every future may be dropped at any await: the engine's guard then
/// closes the connection, so no verb needs to clean up.
#[doc(hidden)]
pub trait Verbs:
    SchemaVerbs + Database<TransactionManager: TransactionManager<Database = Self>> + Sized
{
    /// One writer at a time: calls queue in the process, and a replay is looked up before the queue.
    const ONE_WRITER: bool = false;
    /// Whether what a body writes after its own ROLLBACK stays. If so, a lost transaction interrupts the key.
    const WRITES_OUTLIVE_ROLLBACK: bool = true;

    type Sql: std::fmt::Debug + Send + Sync + 'static;

    fn sql(names: &Names) -> Self::Sql;
    fn migrations() -> &'static [(i64, &'static str, &'static str)];
    fn fault(error: &sqlx::Error) -> Fault;
    /// Whether another process holds the whole database for a moment.
    fn busy(_error: &sqlx::Error) -> bool {
        false
    }

    // Claims.
    fn holder(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        hash: KeyHash,
    ) -> impl Future<Output = sqlx::Result<Option<Holder>>> + Send;
    /// BEGIN, settings and claim in one message; answers whether the key is ours. Never waits for another call's claim.
    fn begin(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        claim: &NewClaim<'_>,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;
    /// When the key is not ours: ends the transaction and reads the holder, `None` while that one is in flight.
    fn end_held(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        hash: KeyHash,
    ) -> impl Future<Output = sqlx::Result<Option<Holder>>> + Send;
    /// Waits until the call that holds the key elsewhere ends, at most this long, and holds nothing afterwards.
    fn await_holder(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        hash: KeyHash,
        bound: Duration,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;
    /// BEGIN with a witness instead of a claim.
    fn begin_unkeyed(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        attempt: Attempt,
        isolation: Isolation,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;
    /// Fence, events, COMMIT.
    fn complete(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        end: &Completion<'_>,
    ) -> impl Future<Output = Result<(), Unfinished>> + Send;
    fn rollback(conn: &mut Self::Connection) -> impl Future<Output = sqlx::Result<()>> + Send;
    /// Writes that the call behind this claim ended its own transaction.
    fn interrupt(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        claim: &NewClaim<'_>,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;
    fn interrupted(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        limit: i64,
    ) -> impl Future<Output = sqlx::Result<Vec<InterruptedKey>>> + Send;
    fn release(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        hash: KeyHash,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;
    fn purge(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        limit: i64,
    ) -> impl Future<Output = sqlx::Result<u64>> + Send;

    // Outbox.
    fn pending(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
    ) -> impl Future<Output = sqlx::Result<i64>> + Send;
    fn read(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        limit: i64,
    ) -> impl Future<Output = sqlx::Result<Vec<Envelope>>> + Send;
    fn remove(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        event: &Envelope,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    // Schema.
    fn version(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
    ) -> impl Future<Output = sqlx::Result<Option<i64>>> + Send;
}

/// The error that the engine reports for a failure outside the body.
pub(crate) fn error<DB: Verbs>(source: sqlx::Error) -> Error {
    let kind = match DB::fault(&source) {
        // SQLite has no other server: the file cannot be written.
        Fault::WrongServer if DB::ONE_WRITER => ErrorKind::RightsMissing {
            on: names::named_in(&source),
        },
        Fault::Disconnected | Fault::WrongServer | Fault::Unavailable => ErrorKind::Unavailable,
        Fault::Conflict => ErrorKind::NotCommitted,
        Fault::TablesMissing => ErrorKind::TablesMissing,
        Fault::ForeignKeysOff => ErrorKind::ForeignKeysOff,
        Fault::StatementBinlog => ErrorKind::StatementBinlog,
        Fault::Forbidden => ErrorKind::RightsMissing {
            on: names::named_in(&source),
        },
        Fault::Other => ErrorKind::Database,
    };
    error_as::<DB>(kind, source)
}

pub(crate) fn error_as<DB: Verbs>(kind: ErrorKind, source: sqlx::Error) -> Error {
    let fault = DB::fault(&source);
    match source {
        // The server's message and detail quote values, and an error may be logged: only the code is kept.
        sqlx::Error::Database(refused) => Error::caused_by(
            kind,
            ServerError {
                code: refused.code().map(Into::into),
                fault,
            },
        ),
        other => Error::caused_by(kind, other),
    }
}

/// Whether a failure outside the body was a serialization failure or a deadlock, so that running the body again may help.
pub(crate) fn is_conflict(error: &Error) -> bool {
    let refused = error.source().and_then(|source| source.downcast_ref());
    refused.is_some_and(|refused: &ServerError| refused.fault == Fault::Conflict)
}

/// What is kept of an error that the server answered with.
#[derive(Debug, thiserror::Error)]
#[error("the database answered with error code {}", code.as_deref().unwrap_or("unknown"))]
struct ServerError {
    code: Option<String>,
    fault: Fault,
}

/// Whether sqlx still counts the transaction of a call. A savepoint that a body drops before the server has answered ends it: sqlx
/// queues a ROLLBACK of everything, since it does not know yet that there is a savepoint.
pub(crate) fn in_transaction<DB: Verbs>(conn: &DB::Connection) -> bool {
    <DB as Database>::TransactionManager::get_transaction_depth(conn) > 0
}

/// How many calls may wait in the database at once for holders in other processes: a quarter of the pool.
pub(crate) fn waiters<DB: Database>(pool: &Pool<DB>) -> usize {
    (pool.options().get_max_connections() as usize / 4).max(1)
}

/// Failures that are the same for every driver; `None`: ask the database's own code.
fn driver_fault(error: &sqlx::Error) -> Option<Fault> {
    use sqlx::Error::*;
    match error {
        PoolTimedOut | PoolClosed => Some(Fault::Unavailable),
        Io(_) | Tls(_) | Protocol(_) | WorkerCrashed => Some(Fault::Disconnected),
        Database(_) => None,
        _ => Some(Fault::Other),
    }
}

/// The answer to COMMIT, or a broken connection when it does not come: a network can end without a word.
#[cfg(any(feature = "postgres", feature = "mysql"))]
async fn answer_in<T>(
    patience: Duration,
    commit: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    let silence = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(patience, commit)
        .await
        .map_err(silence)?
}

/// The text of the headers column; null when there are none.
fn headers_json(headers: &crate::model::Headers) -> Option<String> {
    if headers.is_empty() {
        None
    } else {
        serde_json::to_string(headers).ok()
    }
}

/// An unreadable header column loses no event: it is published without the headers.
fn headers_of(json: Option<String>) -> crate::model::Headers {
    json.and_then(|json| serde_json::from_str(&json).ok())
        .unwrap_or_default()
}

/// A row that waits, delayed or to be tried again, stands in partition `-1 - p` of its partition `p`.
fn partition_of(partition_no: i16) -> u16 {
    let waiting = partition_no < 0;
    if waiting {
        -1 - partition_no
    } else {
        partition_no
    }
    .unsigned_abs()
}

fn millis(since_1970: i64) -> Duration {
    Duration::from_millis(since_1970.max(0).unsigned_abs())
}

/// Who emits events, until a relay says better.
fn source() -> Arc<str> {
    static SOURCE: LazyLock<Arc<str>> = LazyLock::new(|| "/effectively".into());
    Arc::clone(&SOURCE)
}

fn fingerprint_of(bytes: Option<Vec<u8>>) -> Option<Fingerprint> {
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .map(Fingerprint)
}

fn attempt_of(bytes: &[u8]) -> sqlx::Result<Attempt> {
    bytes
        .try_into()
        .map(Attempt::from_bytes)
        .map_err(|_| sqlx::Error::Decode("an attempt is 16 bytes".into()))
}
