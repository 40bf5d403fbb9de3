//! The handle a service keeps.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use sqlx::Pool;
use tokio::sync::{OnceCell, Semaphore, watch::Receiver};

use super::{
    flights::Flights, kept::Kept, lent::Lent, outbox::Outbox, remembered::Remembered,
    scopes::Scopes, settings::LedgerBuilder, settings::Settings, wakeup::Wakeup, writers::Writers,
};
use crate::{
    error::{Error, ErrorKind},
    model::Key,
    store::{self, Dialect, Fault, InterruptedKey, Limits, SCHEMA_VERSION},
};

/// The handle a service keeps: a pool and settings, cheap to clone. It is what the `tx` parameter of a handler becomes.
///
/// ```no_run
/// # #[cfg(feature = "postgres")]
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use effectively::Ledger;
/// use sqlx::postgres::PgPoolOptions;
///
/// let pool = PgPoolOptions::new()
///     .max_connections(20)
///     .test_before_acquire(false) // saves a round trip per call; a broken connection is tried again anyway
///     .connect("postgres://localhost/shop")
///     .await?;
/// let ledger = Ledger::new(pool);
/// ledger.migrate().await?;
/// # Ok(())
/// # }
/// ```
///
/// Clones share everything, also the queue of SQLite's one writer and the calls in flight: make one per database and process.
pub struct Ledger<DB: Dialect> {
    inner: Arc<Inner<DB>>,
}

struct Inner<DB: Dialect> {
    pool: Pool<DB>,
    settings: Settings,
    /// Set once the tables were found, and are of a version that this library works with. From then on every name is qualified.
    sql: OnceCell<(DB::Sql, Limits)>,
    /// Found at the first call of a handler. All ledgers of one database share it.
    scopes: OnceCell<Arc<Scopes>>,
    flights: Arc<Flights>,
    remembered: Remembered,
    writers: Writers,
    /// `None`: every connection goes through the pool.
    kept: Option<Arc<Kept<DB>>>,
    wakeup: Wakeup,
    /// One permit per call that may wait in the database for a holder in another process.
    waiters: Semaphore,
}

impl<DB: Dialect> Ledger<DB> {
    /// A ledger with the default settings.
    pub fn new(pool: Pool<DB>) -> Self {
        Self::with(pool, Settings::default())
    }

    /// A ledger with other settings.
    pub fn builder(pool: Pool<DB>) -> LedgerBuilder<DB> {
        LedgerBuilder::new(pool)
    }

    /// Creates the toolkit's tables, or brings them to the version of this library. The application's own tables and
    /// migrations are not touched. Safe to call at every start, from several processes at once. It also logs a warning for each
    /// scope that functions of different processes share, see [`shared_scopes`](Self::shared_scopes).
    ///
    /// # Errors
    /// [`ErrorKind::Migrate`] and [`ErrorKind::Unavailable`].
    pub async fn migrate(&self) -> Result<(), Error> {
        store::migrate(self.pool(), &self.settings().names).await?;
        self.look_around().await;
        Ok(())
    }

    /// The pool that was given.
    pub fn pool(&self) -> &Pool<DB> {
        &self.inner.pool
    }

    /// The events that are waiting to be published, and those that were given up.
    pub fn outbox(&self) -> Outbox<'_, DB> {
        Outbox::new(self)
    }

    /// Deletes outcomes whose retention is over, and answers how many. In batches of 1,000 rows, so that no lock lasts; run it
    /// every few minutes, beside traffic.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`], [`ErrorKind::TablesMissing`] and [`ErrorKind::Database`]; batches before the error stay done.
    pub async fn purge(&self) -> Result<u64, Error> {
        self.purge_with(|_| {}).await
    }

    /// The oldest keys whose call ended its own transaction, at most 1,000. They are never run again by themselves: look
    /// whether the effects happened, repair, then [`release`](Self::release) them.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`], [`ErrorKind::TablesMissing`] and [`ErrorKind::Database`].
    pub async fn interrupted(&self) -> Result<Vec<InterruptedKey>, Error> {
        let mut lent = self.session().await?;
        let keys = DB::interrupted(lent.conn(), self.sql(), 1000)
            .await
            .map_err(store::error::<DB>)?;
        self.end_session(lent).await;
        Ok(keys)
    }

    /// Frees an interrupted key, so that the next call with it executes. Answers whether it was one.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`], [`ErrorKind::TablesMissing`] and [`ErrorKind::Database`].
    pub async fn release(&self, key: &Key) -> Result<bool, Error> {
        self.release_interrupted(key.hash().0).await
    }

    /// Like [`release`](Self::release), with the id that [`interrupted`](Self::interrupted) showed.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`], [`ErrorKind::TablesMissing`] and [`ErrorKind::Database`].
    pub async fn release_interrupted(&self, id: [u8; 32]) -> Result<bool, Error> {
        let _writer = self.writers().turn().await?;
        let mut lent = self.session().await?;
        let released = DB::release(lent.conn(), self.sql(), crate::model::KeyHash(id))
            .await
            .map_err(store::error::<DB>)?;
        self.end_session(lent).await;
        Ok(released)
    }

    pub(super) fn with(pool: Pool<DB>, settings: Settings) -> Self {
        let inner = Inner {
            sql: OnceCell::new(),
            scopes: OnceCell::new(),
            flights: Arc::default(),
            remembered: Remembered::new(settings.remembered_keys),
            writers: Writers::new(DB::ONE_WRITER),
            kept: settings.reuse_connections.then(Kept::new),
            wakeup: Wakeup::default(),
            waiters: Semaphore::new(store::waiters(&pool)),
            pool,
            settings,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Takes a connection, and before the first use looks whether the tables are the right ones.
    pub(crate) async fn lend(&self) -> Result<Lent<DB>, Error> {
        let mut lent = match self.kept().map(Kept::take) {
            Some(Ok(lent)) => lent,
            waiting => {
                // Boxed: 8 KiB of sqlx, which every future around it would carry and copy.
                let conn = Box::pin(self.pool().acquire()).await;
                drop(waiting);
                Lent::new(conn.map_err(store::error::<DB>)?)
            }
        };
        if !self.inner.sql.initialized() {
            let sql = Box::pin(self.find_tables(&mut lent)).await?;
            let limits = DB::limits(lent.conn()).await;
            let limits = limits.map_err(store::error::<DB>)?;
            // Another call may have been first. It found the same.
            let _ = self.inner.sql.set((sql, limits));
        }
        Ok(lent)
    }

    /// As [`lend`](Self::lend), for statements outside a call, whatever the last borrower left in the session.
    pub(crate) async fn session(&self) -> Result<Lent<DB>, Error> {
        let mut lent = self.lend().await?;
        lent.put_right().await.map_err(store::error::<DB>)?;
        Ok(lent)
    }

    /// Gives a connection of [`session`](Self::session) back as it was.
    pub(crate) async fn end_session(&self, lent: Lent<DB>) {
        if let Some(lent) = lent.put_back().await {
            self.give_back(lent);
        }
    }

    /// The call has ended, and so has its transaction: the connection is for the next call, or for the pool.
    pub(crate) fn give_back(&self, lent: Lent<DB>) {
        match self.kept() {
            Some(kept) => kept.keep(lent),
            None => lent.give_back(),
        }
    }

    /// Where connections are kept; a pool that is closed lends no more, and has them back.
    pub(super) fn kept(&self) -> Option<&Arc<Kept<DB>>> {
        let kept = self.inner.kept.as_ref();
        kept.filter(|_| !self.pool().is_closed())
    }

    /// Closes the connections that wait for a call, here and in the pool, so that the next call opens a new one.
    pub(super) fn close_idle(&self) {
        if let Some(kept) = self.kept() {
            kept.clear();
        }
        for _ in 0..self.pool().num_idle() {
            let Some(mut conn) = self.pool().try_acquire() else {
                return;
            };
            conn.close_on_drop();
        }
    }

    /// The statements with their names, qualified with the schema that the pool's connections begin in.
    pub(super) async fn qualify(&self, lent: &mut Lent<DB>) -> Result<DB::Sql, Error> {
        let names = &self.settings().names;
        let names = names.resolve(self.pool(), lent.conn()).await?;
        Ok(DB::sql(&names))
    }

    async fn find_tables(&self, lent: &mut Lent<DB>) -> Result<DB::Sql, Error> {
        let sql = self.qualify(lent).await?;
        match DB::version(lent.conn(), &sql).await {
            Ok(Some(found)) if found < SCHEMA_VERSION => Err(ErrorKind::SchemaVersion {
                found,
                needed: SCHEMA_VERSION,
            }
            .into()),
            Ok(Some(_)) => Ok(sql),
            // Another tool may have applied the SQL files: then only the tables themselves tell.
            Ok(None) => DB::pending(lent.conn(), &sql)
                .await
                .map(|_| sql)
                .map_err(store::error::<DB>),
            Err(error) if DB::fault(&error) == Fault::TablesMissing => {
                DB::pending(lent.conn(), &sql)
                    .await
                    .map(|_| sql)
                    .map_err(store::error::<DB>)
            }
            Err(error) => Err(store::error::<DB>(error)),
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// For whoever has a connection of [`lend`](Self::lend).
    pub(crate) fn sql(&self) -> &DB::Sql {
        &self.found().0
    }

    /// What the database takes in one message.
    pub(super) fn limits(&self) -> Limits {
        self.found().1
    }

    fn found(&self) -> &(DB::Sql, Limits) {
        match self.inner.sql.get() {
            Some(found) => found,
            None => unreachable!("a connection is lent only after the tables were found"),
        }
    }

    pub(super) fn scopes_cell(&self) -> &OnceCell<Arc<Scopes>> {
        &self.inner.scopes
    }

    pub(super) fn flights(&self) -> &Arc<Flights> {
        &self.inner.flights
    }

    pub(super) fn remembered(&self) -> &Remembered {
        &self.inner.remembered
    }

    pub(crate) fn writers(&self) -> &Writers {
        &self.inner.writers
    }

    /// Hears of commits with events in this process.
    pub(crate) fn wakeups(&self) -> Receiver<u64> {
        self.inner.wakeup.hear()
    }

    /// Whether relays in other processes are woken, and this process is by them.
    pub(crate) fn notifies(&self) -> bool {
        self.settings().notify_relays
    }

    /// A commit with events: relays need not wait for their next look.
    pub(super) fn wake(&self) {
        self.inner.wakeup.ring();
        if self.notifies() {
            self.inner.wakeup.notify_others(self);
        }
    }

    /// As [`clone`](Clone::clone), and does not keep the ledger alive.
    pub(super) fn downgrade(&self) -> WeakLedger<DB> {
        WeakLedger(Arc::downgrade(&self.inner))
    }

    pub(super) fn waiters(&self) -> &Semaphore {
        &self.inner.waiters
    }
}

/// A ledger that may be gone.
pub(super) struct WeakLedger<DB: Dialect>(Weak<Inner<DB>>);

impl<DB: Dialect> WeakLedger<DB> {
    pub(super) fn upgrade(&self) -> Option<Ledger<DB>> {
        self.0.upgrade().map(|inner| Ledger { inner })
    }
}

impl<DB: Dialect> Clone for Ledger<DB> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<DB: Dialect> fmt::Debug for Ledger<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("database", &DB::NAME)
            .field("settings", self.settings())
            .finish_non_exhaustive()
    }
}
