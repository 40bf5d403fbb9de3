//! The algorithm: from a key to the right to execute, or to the recorded outcome.
//!
//! ```text
//! turn in this process ─→ remembered? ─→ BEGIN + claim ─→ ours: body ─→ fence + events + COMMIT   (claim.rs)
//!        │ outcome just made                  │ held
//!        └→ replay                            └→ ROLLBACK + read holder ─→ complete: compare fingerprint, replay
//!                                                                       ─→ in flight: wait, claim again
//! ```
//!
//! Every await may be the last one: a dropped future leaves a [`Lent`] connection, which closes, and a turn, which passes on.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    claim::{Answer, Claim, Owner},
    flights::Turn,
    ledger::Ledger,
    lent::Lent,
};
use crate::{
    error::{Error, ErrorKind},
    guard,
    model::{Attempt, Fingerprint, Handler, Key, Recorded, backoff::pause},
    store::{self, Dialect, Fault, Holder},
};

/// How a call goes on.
#[derive(Debug)]
pub enum Entered<DB: Dialect> {
    /// The key is ours: execute the body.
    Claimed(Claim<DB>),
    /// Answer from the recorded outcome.
    Replay(Answer),
}

/// How often a claim is tried again after a deadlock or a broken connection. The body has not run, so nothing repeats.
const TRIES: u32 = 20;

impl<DB: Dialect> Ledger<DB> {
    pub(crate) async fn enter(
        &self,
        handler: &Handler,
        key: Key,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Entered<DB>, Error> {
        self.admit(handler)?;
        let deadline = Instant::now() + handler.wait.unwrap_or(self.settings().wait);
        let turn = match self
            .flights()
            .turn(key.hash(), fingerprint, deadline)
            .await?
        {
            Turn::Ours(turn) => turn,
            Turn::Replay(recorded) => {
                return Ok(Entered::Replay(Answer {
                    recorded,
                    replay: true,
                }));
            }
        };
        let owner = Owner::new(handler, key, fingerprint, turn, self.settings());
        // A remembered key costs no transaction. SQLite looks first, so that a replay does not queue behind the writer.
        let known = if DB::ONE_WRITER || self.remembered().contains(owner.hash()) {
            self.look_up(&owner).await?
        } else {
            None
        };
        match known {
            Some(recorded) => Ok(self.replay(owner, recorded)),
            None => self.claim(owner, deadline).await,
        }
    }

    /// Claims the key, or reads the outcome of the call that holds it, waiting for it until the deadline.
    async fn claim(&self, mut owner: Owner, deadline: Instant) -> Result<Entered<DB>, Error> {
        let writer = self.writers().turn().await?;
        let mut tries = 0;
        loop {
            let mut lent = self.lend().await?;
            crate::fault::point("before_claim")
                .await
                .map_err(store::error::<DB>)?;
            match DB::begin(lent.conn(), self.sql(), &owner.claim()).await {
                Ok(true) => {
                    crate::fault::point("after_claim")
                        .await
                        .map_err(store::error::<DB>)?;
                    return Ok(Entered::Claimed(Claim::keyed(
                        self.clone(),
                        lent,
                        owner,
                        writer,
                    )));
                }
                Ok(false) => match self.judge(lent, &owner).await? {
                    Verdict::Replay(recorded) => return Ok(self.replay(owner, recorded)),
                    Verdict::Expired => owner.take_over(),
                    Verdict::InFlight => self.await_elsewhere(&owner, deadline).await?,
                },
                Err(error) => {
                    tries += 1;
                    self.recover(lent, error, tries).await?;
                }
            }
        }
    }

    /// `#[outbox]` without a key: a transaction with a witness.
    pub(crate) async fn enter_unkeyed(&self, handler: &Handler) -> Result<Claim<DB>, Error> {
        guard_against_nesting()?;
        let writer = self.writers().turn().await?;
        let attempt = Attempt::new();
        let mut tries = 0;
        loop {
            let mut lent = self.lend().await?;
            match DB::begin_unkeyed(lent.conn(), attempt, handler.isolation).await {
                Ok(()) => return Ok(Claim::unkeyed(self.clone(), lent, attempt, writer)),
                Err(error) => {
                    tries += 1;
                    self.recover(lent, error, tries).await?;
                }
            }
        }
    }

    fn admit(&self, handler: &Handler) -> Result<(), Error> {
        guard_against_nesting()?;
        self.scopes().admit(handler)
    }

    async fn look_up(&self, owner: &Owner) -> Result<Option<Arc<Recorded>>, Error> {
        let mut lent = self.lend().await?;
        let holder = DB::holder(lent.conn(), self.sql(), owner.hash())
            .await
            .map_err(store::error::<DB>)?;
        lent.give_back();
        match verdict(holder, owner.fingerprint())? {
            Verdict::Replay(recorded) => Ok(Some(recorded)),
            Verdict::Expired | Verdict::InFlight => Ok(None),
        }
    }

    async fn judge(&self, mut lent: Lent<DB>, owner: &Owner) -> Result<Verdict, Error> {
        let holder = DB::end_held(lent.conn(), self.sql(), owner.hash())
            .await
            .map_err(store::error::<DB>)?;
        lent.give_back();
        verdict(holder, owner.fingerprint())
    }

    fn replay(&self, owner: Owner, recorded: Arc<Recorded>) -> Entered<DB> {
        self.remembered().insert(owner.hash());
        owner.pass_on(&recorded);
        Entered::Replay(Answer {
            recorded,
            replay: true,
        })
    }

    /// Waits in the database for a holder in another process. Only a quarter of the pool may: the rest of it serves other keys.
    async fn await_elsewhere(&self, owner: &Owner, deadline: Instant) -> Result<(), Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        let permit = self.waiters().try_acquire();
        let (false, Ok(_permit)) = (left.is_zero(), permit) else {
            return Err(ErrorKind::InFlight.into());
        };
        let mut lent = self.lend().await?;
        DB::await_holder(lent.conn(), self.sql(), owner.hash(), left)
            .await
            .map_err(store::error::<DB>)?;
        lent.give_back();
        Ok(())
    }

    /// Before the body ran, a conflict or a broken connection is tried again; anything else is the caller's to know.
    async fn recover(
        &self,
        mut lent: Lent<DB>,
        error: sqlx::Error,
        tries: u32,
    ) -> Result<(), Error> {
        let fault = DB::fault(&error);
        // A connection that cannot roll back is closed.
        if DB::rollback(lent.conn()).await.is_ok() {
            lent.give_back();
        }
        let again = match fault {
            Fault::Conflict => tries < TRIES,
            Fault::Unavailable => store::is_broken(&error) && tries < 3,
            _ => false,
        };
        if !again {
            return Err(store::error::<DB>(error));
        }
        tokio::time::sleep(pause(tries)).await;
        Ok(())
    }
}

/// What a holder's row means for this call.
pub(super) enum Verdict {
    Replay(Arc<Recorded>),
    Expired,
    InFlight,
}

/// # Errors
/// Mismatch, Interrupted, and Decode for an outcome that is not ours.
pub(super) fn verdict(
    holder: Option<Holder>,
    fingerprint: Option<Fingerprint>,
) -> Result<Verdict, Error> {
    let Some(holder) = holder else {
        return Ok(Verdict::InFlight);
    };
    let Some(outcome) = holder.outcome else {
        return Err(ErrorKind::Interrupted.into());
    };
    if holder.expired {
        return Ok(Verdict::Expired);
    }
    // A handler that had no fingerprint when the outcome was recorded, or has none now, compares nothing.
    if holder
        .fingerprint
        .zip(fingerprint)
        .is_some_and(|(first, now)| first != now)
    {
        return Err(ErrorKind::Mismatch.into());
    }
    Ok(Verdict::Replay(Arc::new(Recorded::decode(&outcome)?)))
}

/// A call inside another's body would wait for itself, or for the pool.
fn guard_against_nesting() -> Result<(), Error> {
    if guard::inside_claim() {
        Err(ErrorKind::NestedCall.into())
    } else {
        Ok(())
    }
}
