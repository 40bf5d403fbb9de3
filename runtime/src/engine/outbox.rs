//! Looking into the outbox: how much waits, what was given up, and a simple drain to a function.

use super::Ledger;
use crate::{
    error::{Error, ErrorKind},
    model::Envelope,
    store::{self, Backlog, DeadLetter, Dialect, LeaseState},
};

/// The events that committed calls have left to be published, and those that were given up. From [`Ledger::outbox`].
#[derive(Debug)]
pub struct Outbox<'a, DB: Dialect> {
    ledger: &'a Ledger<DB>,
}

impl<'a, DB: Dialect> Outbox<'a, DB> {
    pub(super) fn new(ledger: &'a Ledger<DB>) -> Self {
        Self { ledger }
    }

    /// How many events wait, delayed ones included.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`], [`ErrorKind::TablesMissing`] and [`ErrorKind::Database`].
    pub async fn pending(&self) -> Result<u64, Error> {
        let mut lent = self.ledger.session().await?;
        let pending = DB::pending(lent.conn(), self.ledger.sql())
            .await
            .map_err(store::error::<DB>)?;
        self.ledger.end_session(lent).await;
        u64::try_from(pending).map_err(|source| Error::caused_by(ErrorKind::Database, source))
    }

    /// The first events that are due, in the order of the outbox. They stay where they are: for looking at, not for publishing.
    ///
    /// # Errors
    /// As [`pending`](Self::pending).
    pub async fn peek(&self, limit: u32) -> Result<Vec<Envelope>, Error> {
        self.read(limit.into()).await
    }

    /// How much waits, how long already, and what has been given up. It counts the outbox, and on MySQL reads all keys that are
    /// kept: for a status page or a gauge every few seconds, there every few minutes, and not for every request.
    ///
    /// # Errors
    /// As [`pending`](Self::pending).
    pub async fn backlog(&self) -> Result<Backlog, Error> {
        let mut lent = self.ledger.session().await?;
        let backlog = DB::backlog(lent.conn(), self.ledger.sql()).await;
        let backlog = backlog.map_err(store::error::<DB>)?;
        self.ledger.end_session(lent).await;
        Ok(backlog)
    }

    /// Who may publish which partition.
    ///
    /// # Errors
    /// As [`pending`](Self::pending).
    pub async fn leases(&self) -> Result<Vec<LeaseState>, Error> {
        let mut lent = self.ledger.session().await?;
        let leases = DB::leases(lent.conn(), self.ledger.sql()).await;
        let leases = leases.map_err(store::error::<DB>)?;
        self.ledger.end_session(lent).await;
        Ok(leases)
    }

    /// Events that a relay has given up, oldest first: at most `limit` of those whose [`id`](DeadLetter::id) is above `after`.
    /// Begin with `after` 0.
    ///
    /// # Errors
    /// As [`pending`](Self::pending).
    pub async fn dead_letters(&self, after: i64, limit: u32) -> Result<Vec<DeadLetter>, Error> {
        let mut lent = self.ledger.session().await?;
        let letters = DB::dead_letters(lent.conn(), self.ledger.sql(), after, limit.into()).await;
        let letters = letters.map_err(store::error::<DB>)?;
        self.ledger.end_session(lent).await;
        Ok(letters)
    }

    /// Puts a dead letter back to where it was in the outbox, with the same event id and with no attempt counted. Answers
    /// whether it was one.
    ///
    /// # Errors
    /// As [`pending`](Self::pending).
    pub async fn retry(&self, id: i64) -> Result<bool, Error> {
        let _writer = self.ledger.writers().turn().await?;
        let mut lent = self.ledger.session().await?;
        let back = DB::retry(lent.conn(), self.ledger.sql(), id).await;
        let back = back.map_err(store::error::<DB>)?;
        self.ledger.end_session(lent).await;
        if back {
            self.ledger.wake();
        }
        Ok(back)
    }

    /// Deletes a dead letter for ever. Answers whether it was one.
    ///
    /// # Errors
    /// As [`pending`](Self::pending).
    pub async fn discard(&self, id: i64) -> Result<bool, Error> {
        let _writer = self.ledger.writers().turn().await?;
        let mut lent = self.ledger.session().await?;
        let gone = DB::discard(lent.conn(), self.ledger.sql(), id).await;
        let gone = gone.map_err(store::error::<DB>)?;
        self.ledger.end_session(lent).await;
        Ok(gone)
    }

    /// Deletes published events that have been kept as long as the relay was told to, see
    /// [`keep_published`](crate::RelayBuilder::keep_published), and answers how many. In batches of 1,000 rows, beside traffic.
    ///
    /// # Errors
    /// As [`pending`](Self::pending); batches before the error stay done.
    pub async fn purge_published(&self) -> Result<u64, Error> {
        self.purge_published_with(|_| {}).await
    }

    /// Like [`purge_published`](Self::purge_published), and says after each batch how many events it has deleted so far.
    ///
    /// # Errors
    /// As [`purge_published`](Self::purge_published).
    pub async fn purge_published_with(&self, mut progress: impl FnMut(u64)) -> Result<u64, Error> {
        const BATCH: i64 = 1000;
        let mut purged = 0;
        loop {
            let _writer = self.ledger.writers().turn().await?;
            let mut lent = self.ledger.session().await?;
            let batch = DB::purge_published(lent.conn(), self.ledger.sql(), BATCH).await;
            let batch = batch.map_err(store::error::<DB>)?;
            self.ledger.end_session(lent).await;
            purged += batch;
            progress(purged);
            if batch < BATCH.unsigned_abs() {
                return Ok(purged);
            }
        }
    }

    /// Hands every event that is due to `publish`, one after the other in the order of the outbox, and removes each one after
    /// it was taken. Answers how many were. For tests, tools and small services; run one drain at a time.
    ///
    /// No connection and no transaction is held while `publish` works. An event is handed over again, with the same id, when
    /// the process ends before it was removed: at least once.
    ///
    /// # Errors
    /// The first error of `publish`: its event and all later ones stay. [`Drained::Toolkit`] for an error of the database.
    pub async fn drain<E>(
        &self,
        mut publish: impl AsyncFnMut(&Envelope) -> Result<(), E>,
    ) -> Result<u64, Drained<E>> {
        const BATCH: i64 = 100;
        let mut taken = 0;
        loop {
            let batch = self.read(BATCH).await?;
            if batch.is_empty() {
                return Ok(taken);
            }
            for envelope in &batch {
                publish(envelope).await.map_err(Drained::Publish)?;
                self.remove(envelope).await?;
                taken += 1;
            }
        }
    }

    async fn read(&self, limit: i64) -> Result<Vec<Envelope>, Error> {
        let database = self.ledger.database().await?;
        let mut lent = self.ledger.session().await?;
        let mut batch = DB::read(lent.conn(), self.ledger.sql(), limit)
            .await
            .map_err(store::error::<DB>)?;
        self.ledger.end_session(lent).await;
        for event in &mut batch {
            event.database = database;
        }
        Ok(batch)
    }

    async fn remove(&self, event: &Envelope) -> Result<(), Error> {
        let _writer = self.ledger.writers().turn().await?;
        let mut lent = self.ledger.session().await?;
        DB::remove(lent.conn(), self.ledger.sql(), event)
            .await
            .map_err(store::error::<DB>)?;
        self.ledger.end_session(lent).await;
        Ok(())
    }
}

/// Why a drain ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Drained<E> {
    /// The function refused an event.
    #[error("an event was not taken")]
    Publish(#[source] E),
    /// The outbox could not be read or written.
    #[error(transparent)]
    Toolkit(#[from] Error),
}
