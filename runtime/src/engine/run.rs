//! The algorithm: from a key to the right to execute, or to the recorded outcome.
//!
//! ```text
//! turn in this process ─→ known here? ─→ BEGIN + claim ─→ ours: body ─→ fence + events + COMMIT   (claim.rs)
//!        │ outcome just made                 │ held
//!        └→ replay                           └→ ROLLBACK + read the holder ─→ complete: compare fingerprint, replay
//!                                                                          ─→ expired: claim over it
//!                                                                          ─→ in flight: wait, claim again
//! ```
//!
//! Every await may be the last: a dropped future leaves a [`Lent`](super::lent::Lent) connection, which closes, and a seat,
//! which passes on. What is rare is boxed, or every handler's future would carry it. The steps are in `steps.rs`, what an
//! unclear end means is in `resolve.rs`.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    claim::{Answer, Claim, Owner},
    flights::Turn,
    ledger::Ledger,
    verdict::Verdict,
};
use crate::{
    error::{Error, ErrorKind},
    fault, guard,
    model::{Attempt, Fingerprint, Handler, Key, Recorded, limits},
    store::{self, Dialect},
};

/// How a call goes on.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart at once; a box would cost every first call an allocation"
)]
pub enum Entered<DB: Dialect> {
    /// The key is ours: execute the body.
    Claimed(Claim<DB>),
    /// Answer from the recorded outcome.
    Replay(Answer),
}

impl<DB: Dialect> Ledger<DB> {
    pub(crate) async fn enter(
        &self,
        handler: &Handler,
        key: Key,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Entered<DB>, Error> {
        refuse_nesting()?;
        handler.wait.map_or(Ok(()), limits::wait)?;
        handler.retention.map_or(Ok(()), limits::retention)?;
        self.admit(handler).await?;
        let deadline = Instant::now() + handler.wait.unwrap_or(self.settings().wait);
        let seat = match self
            .flights()
            .turn(key.hash(), fingerprint, deadline)
            .await?
        {
            Turn::Ours(seat) => seat,
            Turn::Replay(recorded) => return Ok(Entered::replay(recorded)),
        };
        let owner = Owner::new(handler, key, fingerprint, seat, self.settings());
        // A key known to be complete costs no transaction. SQLite always looks first: a replay must not queue for the writer.
        let looks_first = DB::ONE_WRITER || self.remembered().contains(owner.hash());
        match if looks_first {
            self.look_up(&owner).await?
        } else {
            None
        } {
            Some(recorded) => Ok(self.replay(owner, recorded)),
            None => self.claim(owner, deadline).await,
        }
    }

    async fn claim(&self, mut owner: Owner, deadline: Instant) -> Result<Entered<DB>, Error> {
        let writer = self.writers().turn().await?;
        let mut tries = 0;
        loop {
            let mut lent = self.lend().await?;
            fault::point("before_claim")
                .await
                .map_err(store::error::<DB>)?;
            match DB::begin(lent.conn(), self.sql(), &owner.claim()).await {
                Ok(true) => {
                    fault::point("after_claim")
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
                    Verdict::Expired if !owner.takes_over() => owner.take_over(),
                    // Expired and not to be had: another call is taking it over.
                    Verdict::Expired | Verdict::InFlight => {
                        Box::pin(self.await_elsewhere(&owner, deadline)).await?;
                    }
                },
                Err(error) => Box::pin(self.recover(lent, error, &mut tries)).await?,
            }
        }
    }

    /// `#[outbox]` without a key: a transaction with a witness.
    pub(crate) async fn enter_unkeyed(&self, handler: &Handler) -> Result<Claim<DB>, Error> {
        refuse_nesting()?;
        let writer = self.writers().turn().await?;
        let attempt = Attempt::new();
        let mut tries = 0;
        loop {
            let mut lent = self.lend().await?;
            match DB::begin_unkeyed(lent.conn(), self.sql(), attempt, handler.isolation).await {
                Ok(()) => return Ok(Claim::unkeyed(self.clone(), lent, attempt, writer)),
                Err(error) => Box::pin(self.recover(lent, error, &mut tries)).await?,
            }
        }
    }

    fn replay(&self, owner: Owner, recorded: Arc<Recorded>) -> Entered<DB> {
        self.remembered().insert(owner.hash());
        owner.pass_on(&recorded);
        Entered::replay(recorded)
    }
}

impl<DB: Dialect> Entered<DB> {
    fn replay(recorded: Arc<Recorded>) -> Self {
        Self::Replay(Answer {
            recorded,
            replay: true,
        })
    }
}

/// A call inside another's body would wait for itself, or for the pool.
fn refuse_nesting() -> Result<(), Error> {
    if guard::inside_claim() {
        return Err(ErrorKind::NestedCall.into());
    }
    Ok(())
}
