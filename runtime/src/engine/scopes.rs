//! Who uses which scope: two handlers with one scope would take each other's calls for repeats of their own.
//!
//! In one process all ledgers of a database have one registry, which refuses the second handler before its first claim. Other
//! processes are known only from what they have noted in the database. That is too late to refuse anything, so it is a warning.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::Ledger;
use crate::{
    error::{Error, ErrorKind},
    model::Handler,
    store::{self, Dialect, Identity, ScopeUse},
};

/// Kept for as long as the process lives: a ledger that was dropped has left its answers in the database. Some hundred bytes for
/// each database.
static REGISTRIES: LazyLock<Mutex<HashMap<Identity, Arc<Scopes>>>> = LazyLock::new(Mutex::default);

/// How often a process notes that it still uses a scope.
const NOTED_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// When a note is tried again whose end nobody has reported.
const TRIED_EVERY: Duration = Duration::from_secs(60);

/// The scopes of one database in this process.
#[derive(Debug)]
pub(super) struct Scopes {
    database: Uuid,
    opened: Instant,
    uses: RwLock<HashMap<&'static str, Use>>,
}

/// The handler that claimed the scope first.
#[derive(Debug)]
struct Use {
    place: &'static str,
    /// Seconds after `opened`.
    note_at: AtomicU64,
}

impl Scopes {
    fn of(identity: Identity) -> Arc<Self> {
        let mut all = REGISTRIES.lock().unwrap_or_else(PoisonError::into_inner);
        let database = identity.id;
        let new = || {
            Arc::new(Self {
                database,
                opened: Instant::now(),
                uses: RwLock::default(),
            })
        };
        Arc::clone(all.entry(identity).or_insert_with(new))
    }

    /// Returns whether the caller is to note the use in the database.
    ///
    /// # Errors
    /// [`ErrorKind::DuplicateScope`] for a second handler, before its first claim.
    fn admit(&self, handler: &Handler) -> Result<bool, Error> {
        let known = self.uses.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(handler.scope) {
            return self.admit_to(known, handler);
        }
        drop(known);
        let mut uses = self.uses.write().unwrap_or_else(PoisonError::into_inner);
        let first = uses.entry(handler.scope).or_insert(Use {
            place: handler.place,
            note_at: AtomicU64::new(0),
        });
        self.admit_to(first, handler)
    }

    fn admit_to(&self, first: &Use, handler: &Handler) -> Result<bool, Error> {
        if first.place != handler.place {
            return Err(ErrorKind::DuplicateScope {
                scope: handler.scope.into(),
                first: first.place,
                second: handler.place,
            }
            .into());
        }
        let (now, due) = (self.opened.elapsed(), first.note_at.load(Ordering::Relaxed));
        let next = (now + TRIED_EVERY).as_secs();
        let ours = || {
            let swap =
                first
                    .note_at
                    .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
            swap.is_ok()
        };
        Ok(due <= now.as_secs() && ours())
    }

    fn noted(&self, scope: &str) {
        let next = (self.opened.elapsed() + NOTED_EVERY).as_secs();
        let uses = self.uses.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = uses.get(scope) {
            known.note_at.store(next, Ordering::Relaxed);
        }
    }
}

impl<DB: Dialect> Ledger<DB> {
    /// Refuses a handler whose scope is another's.
    pub(super) async fn admit(&self, handler: &Handler) -> Result<(), Error> {
        // `Ledger::run` names its scope at every call and stands nowhere.
        if handler.place.is_empty() {
            return Ok(());
        }
        if self.scopes().await?.admit(handler)? {
            self.note_in_background(*handler);
        }
        Ok(())
    }

    /// The identity of the database, as it was at the first use of this ledger.
    pub(crate) async fn database(&self) -> Result<Uuid, Error> {
        self.scopes().await.map(|scopes| scopes.database)
    }

    /// Which functions share a scope although each process knows only one of them: one would get the other's recorded answers.
    /// A function counts for seven days after a process has last noted it, which each does once a day.
    ///
    /// ```no_run
    /// # #[cfg(feature = "postgres")]
    /// # async fn example(ledger: effectively::Ledger<sqlx::Postgres>) -> Result<(), effectively::Error> {
    /// for shared in ledger.shared_scopes().await? {
    ///     println!("{} is used by {}", shared.scope, shared.place);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable), [`TablesMissing`](ErrorKind::TablesMissing) and
    /// [`Database`](ErrorKind::Database).
    pub async fn shared_scopes(&self) -> Result<Vec<ScopeUse>, Error> {
        let mut lent = self.session().await?;
        let shared = DB::shared_scopes(lent.conn(), self.sql()).await;
        let shared = shared.map_err(store::error::<DB>)?;
        self.end_session(lent).await;
        Ok(shared)
    }

    /// At a start: makes the identity's row again if all tables were emptied, and warns of what other processes have noted. The
    /// first use does that as well, so an error here does not fail the start.
    pub(super) async fn look_around(&self) {
        let shared = async {
            self.identity().await?;
            self.shared_scopes().await
        };
        match shared.await {
            Ok(shared) => shared.iter().for_each(|one| warn(&one.scope, &one.place)),
            Err(error) => {
                tracing::debug!(target: "effectively::scopes", %error, "the uses of scopes could not be read");
            }
        }
    }

    async fn identity(&self) -> Result<Identity, Error> {
        let mut lent = self.session().await?;
        let identity = DB::identity(lent.conn(), self.sql()).await;
        let identity = identity.map_err(store::error::<DB>)?;
        self.end_session(lent).await;
        Ok(identity)
    }

    /// The registry of this ledger's database. Only the first call asks the database.
    async fn scopes(&self) -> Result<&Scopes, Error> {
        match self.scopes_cell().get() {
            Some(scopes) => Ok(scopes),
            None => Box::pin(self.find_scopes()).await,
        }
    }

    async fn find_scopes(&self) -> Result<&Scopes, Error> {
        let find = || async { self.identity().await.map(Scopes::of) };
        let scopes = self.scopes_cell().get_or_try_init(find).await?;
        Ok(scopes)
    }

    /// No call waits for it or fails with it. If it never ends, a later call begins it again.
    fn note_in_background(&self, handler: Handler) {
        let ledger = self.clone();
        tokio::spawn(async move {
            if let Err(error) = ledger.note(&handler).await {
                tracing::debug!(target: "effectively::scopes", scope = handler.scope, %error, "the use of a scope could not be noted");
            }
        });
    }

    async fn note(&self, handler: &Handler) -> Result<(), Error> {
        let scopes = self.scopes().await?;
        let _writer = self.writers().turn().await?;
        let mut lent = self.session().await?;
        let others = DB::note_scope(lent.conn(), self.sql(), handler.scope, handler.place).await;
        let others = others.map_err(store::error::<DB>)?;
        self.end_session(lent).await;
        scopes.noted(handler.scope);
        if !others.is_empty() {
            warn(handler.scope, handler.place);
        }
        for other in others {
            warn(handler.scope, &other);
        }
        Ok(())
    }
}

fn warn(scope: &str, place: &str) {
    tracing::warn!(
        target: "effectively::scopes", scope, place,
        "two functions use one scope in different processes: each gets the other's recorded answers; give one of them its own `scope`"
    );
}
