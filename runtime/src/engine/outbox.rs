//! Reading the outbox back: how much waits, and a simple drain to a function.

use super::Ledger;
use crate::{
    error::{Error, ErrorKind},
    model::Envelope,
    store::{self, Dialect},
};

/// The events that committed calls have left to be published. From [`Ledger::outbox`].
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
        let mut lent = self.ledger.lend().await?;
        let pending = DB::pending(lent.conn(), self.ledger.sql())
            .await
            .map_err(store::error::<DB>)?;
        lent.give_back();
        u64::try_from(pending).map_err(|source| Error::caused_by(ErrorKind::Database, source))
    }

    /// The first events that are due, in the order of the outbox. They stay where they are: for looking at, not for publishing.
    ///
    /// # Errors
    /// As [`pending`](Self::pending).
    pub async fn peek(&self, limit: u32) -> Result<Vec<Envelope>, Error> {
        self.read(limit.into()).await
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
                self.remove(envelope.outbox_id).await?;
                taken += 1;
            }
        }
    }

    async fn read(&self, limit: i64) -> Result<Vec<Envelope>, Error> {
        let mut lent = self.ledger.lend().await?;
        let batch = DB::read(lent.conn(), self.ledger.sql(), limit)
            .await
            .map_err(store::error::<DB>)?;
        lent.give_back();
        Ok(batch)
    }

    async fn remove(&self, outbox_id: i64) -> Result<(), Error> {
        let _writer = self.ledger.writers().turn().await?;
        let mut lent = self.ledger.lend().await?;
        DB::remove(lent.conn(), self.ledger.sql(), outbox_id)
            .await
            .map_err(store::error::<DB>)?;
        lent.give_back();
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
