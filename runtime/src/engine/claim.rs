//! The claim: proof of the right to execute, the open transaction, and its end.

use std::{sync::Arc, time::Duration};

use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use super::{flights::Seat, ledger::Ledger, lent::Lent, observed, settings::Settings};
use crate::{
    error::{Error, ErrorKind},
    fault::{self, Bug},
    model::{Attempt, Fingerprint, Handler, Isolation, Key, KeyHash, OnError, Recorded, Staged},
    store::{self, Completion, Dialect, NewClaim, Unfinished},
};

/// What a call answers with: the first answer and every replay are made from the same bytes.
#[derive(Debug, Clone)]
pub struct Answer {
    pub(crate) recorded: Arc<Recorded>,
    pub(crate) replay: bool,
}

impl Answer {
    /// The answer of a call that was rolled back: nobody else gets it.
    pub(crate) fn unrecorded(recorded: Recorded) -> Self {
        Self {
            recorded: Arc::new(recorded),
            replay: false,
        }
    }
}

/// The right to execute one call, with the open transaction. Only `run.rs` makes one.
///
/// Dropping it at any point is safe: the connection closes, the server rolls back, the key is free.
#[derive(Debug)]
pub struct Claim<DB: Dialect> {
    // Dropped first: the next writer and the next caller of the key come after the connection is gone.
    lent: Lent<DB>,
    /// `None` for `#[outbox]` alone.
    owner: Option<Owner>,
    attempt: Attempt,
    ledger: Ledger<DB>,
    writer: Option<OwnedSemaphorePermit>,
}

impl<DB: Dialect> Claim<DB> {
    pub(super) fn keyed(
        ledger: Ledger<DB>,
        lent: Lent<DB>,
        owner: Owner,
        writer: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            lent,
            attempt: owner.attempt,
            owner: Some(owner),
            ledger,
            writer,
        }
    }

    pub(super) fn unkeyed(
        ledger: Ledger<DB>,
        lent: Lent<DB>,
        attempt: Attempt,
        writer: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            lent,
            attempt,
            owner: None,
            ledger,
            writer,
        }
    }

    /// The transaction, as the body sees it.
    pub(crate) fn tx(&mut self) -> &mut DB::Connection {
        self.lent.conn()
    }

    /// The body succeeded: fence, events, commit.
    pub(crate) async fn complete(
        self,
        recorded: Recorded,
        events: Vec<Staged>,
    ) -> Result<Answer, Error> {
        self.end(recorded, events).await
    }

    /// The body refused for good: its writes are rolled back, the refusal is recorded.
    pub(crate) async fn refuse(self, recorded: Recorded) -> Result<Answer, Error> {
        self.end(recorded, Vec::new()).await
    }

    fn scope(&self) -> &str {
        self.owner
            .as_ref()
            .map_or("", |owner| owner.key.scope().as_str())
    }

    /// The body failed: everything is rolled back and the key is free.
    ///
    /// # Errors
    /// TransactionLost when the body had lost the transaction before: what it wrote afterwards may have stayed.
    pub(crate) async fn release(mut self) -> Result<(), Error> {
        if !self.is_open() {
            observed::count(self.scope(), "transaction_lost");
            return Err(self.lost().await);
        }
        observed::count(self.scope(), "released");
        self.roll_back().await;
        Ok(())
    }

    /// Whether the transaction is still there, as far as sqlx can tell.
    fn is_open(&mut self) -> bool {
        store::in_transaction::<DB>(self.lent.conn())
    }

    async fn roll_back(mut self) {
        // A connection that cannot roll back is closed instead.
        if DB::rollback(self.lent.conn()).await.is_ok() {
            self.ledger.give_back(self.lent);
        }
    }

    /// `#[outbox]` alone: witness, events, commit.
    pub(crate) async fn commit_unkeyed(self, events: Vec<Staged>) -> Result<(), Error> {
        self.end(Recorded::success(Vec::new()), events)
            .await
            .map(drop)
    }

    async fn end(self, recorded: Recorded, events: Vec<Staged>) -> Result<Answer, Error> {
        let (scope, span) = (
            self.scope().to_owned(),
            observed::span("complete", self.scope()),
        );
        let ended = self.commit(recorded, events).instrument(span).await;
        let result = match &ended {
            Ok(answer) if answer.replay => "replayed",
            Ok(_) => "executed",
            Err(error) => error.code(),
        };
        observed::count(&scope, result);
        ended
    }

    async fn commit(mut self, recorded: Recorded, events: Vec<Staged>) -> Result<Answer, Error> {
        let outcome = match self.prepare(&recorded, &events) {
            Ok(outcome) => outcome,
            Err(error) => {
                self.roll_back().await;
                return Err(error);
            }
        };
        let traceparent = self.ledger.settings().traceparent();
        let mut completion = Completion {
            claim: self
                .owner
                .as_ref()
                .map(|owner| (owner.hash(), outcome.as_slice())),
            attempt: self.attempt,
            refused: recorded.is_refusal(),
            events: &events,
            traceparent: traceparent.as_deref(),
            patience: self.ledger.settings().unknown_commit_bound,
            literals: self.ledger.settings().payload_literals
                || (recorded.is_payload_free() && events.is_empty()),
            limits: self.ledger.limits(),
        };
        completion.literals &= completion.fits_as_text();
        let ended = match fault::point("before_fence").await {
            Ok(()) if !self.is_open() => Err(Unfinished::Lost),
            Ok(()) => DB::complete(self.lent.conn(), self.ledger.sql(), &completion).await,
            Err(error) => Err(Unfinished::NotCommitted(error)),
        };
        let recorded = Arc::new(recorded);
        match ended {
            Ok(()) => {
                if !events.is_empty() {
                    self.ledger.wake();
                }
                Ok(self.committed(recorded).await)
            }
            Err(Unfinished::Lost | Unfinished::Aborted(_)) if fault::is_planted(Bug::NoFence) => {
                Ok(self.committed(recorded).await)
            }
            Err(Unfinished::NotCommitted(_) | Unfinished::Unknown(_))
                if fault::is_planted(Bug::AckBeforeCommit) =>
            {
                Ok(Answer {
                    recorded,
                    replay: false,
                })
            }
            // Boxed, as all that is rare: every handler's future would carry it.
            Err(unfinished) => Box::pin(self.unfinished(unfinished, recorded)).await,
        }
    }

    /// What can be refused before anything is sent.
    fn prepare(&self, recorded: &Recorded, events: &[Staged]) -> Result<Vec<u8>, Error> {
        if events.len() > Attempt::MAX_EVENTS {
            return Err(ErrorKind::TooManyEvents {
                limit: Attempt::MAX_EVENTS,
            }
            .into());
        }
        let limits = self.ledger.limits();
        let limit = self.ledger.settings().max_outcome_bytes;
        let outcome = recorded.encode(limit.min(limits.outcome()))?;
        limits.check(&outcome, events)?;
        Ok(outcome)
    }

    async fn committed(self, recorded: Arc<Recorded>) -> Answer {
        // An error here would hide a success: only a panic, a stall or a kill means anything after the commit.
        let _ = fault::point("after_commit").await;
        self.ledger.give_back(self.lent);
        if let Some(owner) = self.owner {
            self.ledger.remembered().insert(owner.hash());
            owner.pass_on(&recorded);
        }
        Answer {
            recorded,
            replay: false,
        }
    }

    async fn unfinished(
        self,
        unfinished: Unfinished,
        recorded: Arc<Recorded>,
    ) -> Result<Answer, Error> {
        match unfinished {
            Unfinished::NotCommitted(error) => {
                self.roll_back().await;
                Err(store::error::<DB>(error))
            }
            Unfinished::Aborted(error) => {
                self.roll_back().await;
                Err(store::error_as::<DB>(ErrorKind::TransactionLost, error))
            }
            Unfinished::ReadOnly(error) => {
                self.roll_back().await;
                Err(store::error_as::<DB>(ErrorKind::TransactionReadOnly, error))
            }
            Unfinished::Lost => Err(self.lost().await),
            Unfinished::Unknown(error) => match self.close() {
                (ledger, Some(owner), _writer) => ledger.resolve(owner, recorded, error).await,
                // Without a key there is no row to ask for.
                (_, None, _) => Err(store::error_as::<DB>(ErrorKind::CommitUnknown, error)),
            },
        }
    }

    /// The transaction ended in the body. Where something of the body may have stayed, nobody runs the key again.
    async fn lost(self) -> Error {
        let (ledger, owner, _writer) = self.close();
        if let Some(owner) = owner {
            ledger.interrupt(&owner).await;
        }
        ErrorKind::TransactionLost.into()
    }

    /// Ends the transaction by closing its connection. What is written about it next is still our turn to write.
    fn close(self) -> (Ledger<DB>, Option<Owner>, Option<OwnedSemaphorePermit>) {
        (self.ledger, self.owner, self.writer)
    }
}

/// Who claims, and with what: it is the same for every try of one call.
#[derive(Debug)]
pub(super) struct Owner {
    key: Key,
    attempt: Attempt,
    fingerprint: Option<Fingerprint>,
    retention: Duration,
    isolation: Isolation,
    savepoint: bool,
    takeover: bool,
    /// The seat in this process: who waits behind it gets the outcome, or the next turn.
    seat: Seat,
}

impl Owner {
    pub(super) fn new(
        handler: &Handler,
        key: Key,
        fingerprint: Option<Fingerprint>,
        seat: Seat,
        settings: &Settings,
    ) -> Self {
        Self {
            key,
            attempt: Attempt::new(),
            fingerprint,
            retention: handler.retention.unwrap_or(settings.retention),
            isolation: handler.isolation,
            savepoint: handler.on_error == OnError::Record,
            takeover: false,
            seat,
        }
    }

    pub(super) fn claim(&self) -> NewClaim<'_> {
        NewClaim {
            hash: self.hash(),
            scope: self.key.scope().as_str(),
            attempt: self.attempt,
            fingerprint: self.fingerprint,
            retention: self.retention,
            isolation: self.isolation,
            savepoint: self.savepoint,
            takeover: self.takeover,
        }
    }

    pub(super) fn hash(&self) -> KeyHash {
        fault::in_hash(self.key.hash())
    }

    pub(super) fn attempt(&self) -> Attempt {
        self.attempt
    }

    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// The holder has expired: its row goes first, if it is still expired then.
    pub(super) fn take_over(&mut self) {
        self.takeover = true;
    }

    pub(super) fn takes_over(&self) -> bool {
        self.takeover
    }

    /// Gives a durable outcome to whoever waits for it in this process.
    pub(super) fn pass_on(self, recorded: &Arc<Recorded>) {
        self.seat.pass_on(Arc::clone(recorded));
    }
}
