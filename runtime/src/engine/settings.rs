//! What a ledger can be told when it is built.

use std::{fmt, sync::Arc, time::Duration};

use sqlx::Pool;

use super::Ledger;
use crate::{
    error::Error,
    model::limits,
    store::{Dialect, GivenNames},
};

/// Where the trace context of the current call comes from.
type TraceContext = Arc<dyn Fn() -> Option<String> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Settings {
    pub(super) names: GivenNames,
    pub(super) retention: Duration,
    pub(super) wait: Duration,
    pub(super) unknown_commit_bound: Duration,
    pub(super) max_outcome_bytes: usize,
    pub(super) payload_literals: bool,
    pub(super) remembered_keys: usize,
    pub(super) reuse_connections: bool,
    pub(super) notify_relays: bool,
    trace_context: Option<TraceContext>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            names: GivenNames::default(),
            retention: Duration::from_secs(24 * 60 * 60),
            wait: Duration::from_secs(2),
            unknown_commit_bound: Duration::from_secs(5),
            max_outcome_bytes: 256 * 1024,
            payload_literals: false,
            remembered_keys: 10_000,
            reuse_connections: false,
            notify_relays: false,
            trace_context: None,
        }
    }
}

impl Settings {
    pub(super) fn traceparent(&self) -> Option<String> {
        self.trace_context.as_ref().and_then(|current| current())
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("names", &self.names)
            .field("retention", &self.retention)
            .field("wait", &self.wait)
            .field("unknown_commit_bound", &self.unknown_commit_bound)
            .field("max_outcome_bytes", &self.max_outcome_bytes)
            .field("payload_literals", &self.payload_literals)
            .field("remembered_keys", &self.remembered_keys)
            .field("reuse_connections", &self.reuse_connections)
            .field("notify_relays", &self.notify_relays)
            .finish_non_exhaustive()
    }
}

/// Builds a [`Ledger`] with other settings than the defaults.
///
/// ```no_run
/// # #[cfg(feature = "postgres")]
/// # fn example(pool: sqlx::PgPool) -> Result<(), effectively::Error> {
/// use std::time::Duration;
///
/// let ledger = effectively::Ledger::builder(pool)
///     .schema("toolkit")
///     .retention(Duration::from_secs(7 * 24 * 60 * 60))
///     .wait(Duration::from_secs(1))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct LedgerBuilder<DB: Dialect> {
    pool: Pool<DB>,
    settings: Settings,
    schema: Option<String>,
    prefix: Option<String>,
}

impl<DB: Dialect> LedgerBuilder<DB> {
    pub(super) fn new(pool: Pool<DB>) -> Self {
        Self {
            pool,
            settings: Settings::default(),
            schema: None,
            prefix: None,
        }
    }

    /// The schema of the tables, on Postgres; on MySQL the database. Default: the one that a new connection of the pool works in,
    /// found once. Any word will do, also one that SQL reserves: names are always quoted. SQLite has none, and the builder refuses it.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// What the tables' names begin with. Default: `effectively_`. Names are always quoted.
    pub fn table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// How long outcomes are kept, counted from the start of the call by the database's clock: 1 millisecond to 100 years.
    /// Default: 24 hours. A handler's own `retention` goes before it.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.settings.retention = retention;
        self
    }

    /// How long a duplicate waits for the first call to finish before it is told that it is in flight; at most a minute. Default:
    /// 2 seconds. A handler's own `wait` goes before it.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.settings.wait = wait;
        self
    }

    /// How long the ledger waits for the answer to a COMMIT, and after that, or when the connection broke, how long it tries to
    /// find out what became of it; at most an hour. Default: 5 seconds each.
    pub fn unknown_commit_bound(mut self, bound: Duration) -> Self {
        self.settings.unknown_commit_bound = bound;
        self
    }

    /// The largest outcome that is stored, in bytes. Default: 262,144. A larger one is an error, and the call is rolled back.
    pub fn max_outcome_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_outcome_bytes = bytes;
        self
    }

    /// Whether outcomes and events may travel as hex text in the message that commits, which saves one round trip per call on
    /// Postgres and two on MySQL. The price: they are in the text of statements, so a server that logs statements and sqlx's
    /// log of slow ones show them. Default: `false`.
    pub fn payload_literals(mut self, allowed: bool) -> Self {
        self.settings.payload_literals = allowed;
        self
    }

    /// How many completed keys a process remembers, to replay them in one round trip. Default: 10,000; 32 bytes each.
    pub fn remembered_keys(mut self, keys: usize) -> Self {
        self.settings.remembered_keys = keys;
        self
    }

    /// Whether a connection may serve the ledger's next call at once, without passing through the pool, which saves the round
    /// trip of sqlx's test at release, and of that before use where the pool makes it: one or two per call. A connection that is
    /// kept so goes back to the pool when no call has taken it for 5 to 10 milliseconds, when a call of this ledger waits for the
    /// pool, and at the end of the first call that ends over 200 milliseconds after the pool lent it: so long may others wait who
    /// use an exhausted pool. The price, too: between two calls the pool's hooks `after_release` and `before_acquire` do not see
    /// it. Leave it off when they reset what a body may leave in a session.
    /// Default: `false`.
    pub fn reuse_connections(mut self, allowed: bool) -> Self {
        self.settings.reuse_connections = allowed;
        self
    }

    /// Whether commits with events wake relays in other processes, and a relay with this ledger listens to them. On Postgres
    /// only, where it is a NOTIFY of its own after the commit, at most 20 in a second. Without it, and on MySQL and SQLite, a
    /// relay in another process finds an event when it looks next, see [`poll`](crate::RelayBuilder::poll); one in this process is
    /// always woken. Not through a PgBouncer in transaction mode, which loses what was listened to. Default: `false`.
    pub fn notify_relays(mut self, notify: bool) -> Self {
        self.settings.notify_relays = notify;
        self
    }

    /// Where the W3C `traceparent` of the current call comes from, for example from an OpenTelemetry span. It is stored with
    /// each event. Default: none.
    pub fn trace_context(
        mut self,
        current: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.settings.trace_context = Some(Arc::new(current));
        self
    }

    /// The ledger.
    ///
    /// # Errors
    /// [`ErrorKind::Settings`](crate::ErrorKind::Settings) when a name is no plain identifier, a schema is given on
    /// SQLite, the retention is under a millisecond or over 100 years, the wait is over a minute, or the unknown commit's bound is over an hour.
    pub fn build(mut self) -> Result<Ledger<DB>, Error> {
        limits::retention(self.settings.retention)?;
        limits::wait(self.settings.wait)?;
        limits::within(
            self.settings.unknown_commit_bound <= limits::LONGEST_UNKNOWN,
            "an unknown commit is looked into for at most an hour",
        )?;
        self.settings.names = GivenNames::new::<DB>(self.schema, self.prefix)?;
        Ok(Ledger::with(self.pool, self.settings))
    }
}
