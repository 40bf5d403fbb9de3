//! Questions of an operator: what the server is set to, what lies in the tables, what became of a key.

use std::time::Duration;

use tokio::time::timeout;

use super::{Ledger, Lent};
use crate::{
    error::{Error, KeyProblem},
    model::{
        Key, KeyHash,
        key::{KeyBuilder, Scope},
    },
    store::{self, Dialect, Fault, KeyState, Leftovers, SCHEMA_VERSION, ServerState},
};

/// How long a second connection is waited for: the pool may have but one, or none to spare.
const PATIENCE: Duration = Duration::from_secs(1);

impl<DB: Dialect> Ledger<DB> {
    /// The version of the tables that this library works with.
    pub const SCHEMA_VERSION: i64 = SCHEMA_VERSION;

    /// The server behind the pool and its settings. Needs no tables. It takes two connections for a moment, if the pool has
    /// them.
    ///
    /// ```no_run
    /// # #[cfg(feature = "postgres")]
    /// # async fn example(ledger: effectively::Ledger<sqlx::Postgres>) -> Result<(), effectively::Error> {
    /// let server = ledger.server().await?;
    /// assert_eq!(server.setting("fsync"), Some("on"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) and [`Database`](crate::ErrorKind::Database).
    pub async fn server(&self) -> Result<ServerState, Error> {
        let mut lent = self.unchecked().await?;
        let state = DB::server(lent.conn()).await;
        let mut state = state.map_err(store::error::<DB>)?;
        let session = DB::session(lent.conn()).await;
        let session = session.map_err(store::error::<DB>)?;
        if session.is_some()
            && let Ok(Ok(mut other)) = timeout(PATIENCE, self.unchecked()).await
        {
            let second = DB::session(other.conn()).await;
            state.shares_sessions = second.map_err(store::error::<DB>)? == session;
            other.give_back();
        }
        lent.give_back();
        Ok(state)
    }

    /// The version of the tables; `None` when another tool has applied the SQL files, which leaves no version.
    ///
    /// # Errors
    /// [`TablesMissing`](crate::ErrorKind::TablesMissing), [`Unavailable`](crate::ErrorKind::Unavailable) and [`Database`](crate::ErrorKind::Database).
    pub async fn schema_version(&self) -> Result<Option<i64>, Error> {
        let mut lent = self.unchecked().await?;
        let sql = self.qualify(&mut lent).await?;
        let version = match DB::version(lent.conn(), &sql).await {
            Err(error) if DB::fault(&error) == Fault::TablesMissing => None,
            version => version.map_err(store::error::<DB>)?,
        };
        if version.is_none() {
            let tables = DB::pending(lent.conn(), &sql).await;
            tables.map_err(store::error::<DB>)?;
        }
        lent.give_back();
        Ok(version)
    }

    /// What is left lying in the tables.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable), [`TablesMissing`](crate::ErrorKind::TablesMissing) and [`Database`](crate::ErrorKind::Database).
    pub async fn leftovers(&self) -> Result<Leftovers, Error> {
        let mut lent = self.session().await?;
        let leftovers = DB::leftovers(lent.conn(), self.sql()).await;
        let leftovers = leftovers.map_err(store::error::<DB>)?;
        self.end_session(lent).await;
        Ok(leftovers)
    }

    /// What the ledger knows of a key. For looking at: a call decides by its claim, not by this.
    ///
    /// ```no_run
    /// # #[cfg(feature = "postgres")]
    /// # async fn example(ledger: effectively::Ledger<sqlx::Postgres>) -> Result<(), effectively::Error> {
    /// use effectively::{Key, KeyState};
    ///
    /// let key = Key::new("orders.place", &[&42_i64, &"8e03978e"])?;
    /// if let KeyState::Interrupted { .. } = ledger.state_of(&key).await? {
    ///     ledger.release(&key).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable), [`TablesMissing`](crate::ErrorKind::TablesMissing) and [`Database`](crate::ErrorKind::Database).
    pub async fn state_of(&self, key: &Key) -> Result<KeyState, Error> {
        self.state_of_id(key.hash().0).await
    }

    /// Like [`state_of`](Self::state_of), with the id that [`interrupted`](Self::interrupted) showed.
    ///
    /// # Errors
    /// As [`state_of`](Self::state_of).
    pub async fn state_of_id(&self, id: [u8; 32]) -> Result<KeyState, Error> {
        let mut lent = self.session().await?;
        let state = DB::key_state(lent.conn(), self.sql(), KeyHash(id)).await;
        let state = state.map_err(store::error::<DB>)?;
        self.end_session(lent).await;
        Ok(state)
    }

    /// Like [`purge`](Self::purge), and says after each batch how many outcomes it has deleted so far.
    ///
    /// # Errors
    /// As [`purge`](Self::purge).
    pub async fn purge_with(&self, mut progress: impl FnMut(u64)) -> Result<u64, Error> {
        const BATCH: i64 = 1000;
        let mut purged = 0;
        loop {
            let _writer = self.writers().turn().await?;
            let mut lent = self.session().await?;
            let batch = DB::purge(lent.conn(), self.sql(), BATCH).await;
            let batch = batch.map_err(store::error::<DB>)?;
            self.end_session(lent).await;
            purged += batch;
            progress(purged);
            if batch < BATCH.unsigned_abs() {
                return Ok(purged);
            }
        }
    }

    /// A connection, whatever the tables are.
    async fn unchecked(&self) -> Result<Lent<DB>, Error> {
        let conn = self.pool().acquire().await.map_err(store::error::<DB>)?;
        Ok(Lent::new(conn))
    }
}

impl Key {
    /// The key that a handler's template makes, written as the template with the values in place of the names:
    /// `key = "order:{cmd.order_id}"` and the order 42 are `order:{42}`. A brace outside of a value is written twice; a value
    /// holds no `}`.
    ///
    /// ```
    /// use effectively::Key;
    ///
    /// let key = Key::filled("orders.place", "{7}/{8e03978e}")?;
    /// # Ok::<_, effectively::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Key::new`]; a brace without its partner ends a text that has no value.
    pub fn filled(
        scope: impl Into<std::borrow::Cow<'static, str>>,
        text: &str,
    ) -> Result<Self, Error> {
        let mut builder = KeyBuilder::new(Scope::new(scope)?);
        let (mut fixed, mut rest) = (String::new(), text);
        while let Some(brace) = rest.find(['{', '}']) {
            fixed.push_str(&rest[..brace]);
            let at_brace = &rest[brace..];
            if at_brace.starts_with("{{") || at_brace.starts_with("}}") {
                fixed.push_str(&at_brace[..1]);
                rest = &at_brace[2..];
                continue;
            }
            let value = at_brace
                .strip_prefix('{')
                .and_then(|tail| tail.split_once('}'));
            let (value, tail) = value.ok_or(KeyProblem::NoParts)?;
            if !fixed.is_empty() {
                builder = builder.literal(&std::mem::take(&mut fixed));
            }
            builder = builder.part(value);
            rest = tail;
        }
        fixed.push_str(rest);
        if !fixed.is_empty() {
            builder = builder.literal(&fixed);
        }
        builder.finish()
    }
}
