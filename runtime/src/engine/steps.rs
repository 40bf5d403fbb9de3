//! The steps of the algorithm that talk to the database before the body runs.

use std::sync::Arc;

use tokio::time::Instant;

use super::{claim::Owner, ledger::Ledger, lent::Lent, verdict::Verdict};
use crate::{
    error::{Error, ErrorKind},
    model::{Recorded, backoff::pause},
    store::{self, Dialect, Fault},
};

/// How often a claim is tried after deadlocks. The body has not run, so nothing repeats.
const CONFLICTS: u32 = 20;
/// How often it is tried on connections that are broken or lead to a server that takes no writes: a restart or a failover leaves a
/// pool full of them.
const BROKEN: u32 = 3;

impl<DB: Dialect> Ledger<DB> {
    /// Reads the outcome without a transaction; `None` when there is none to replay.
    pub(super) async fn look_up(&self, owner: &Owner) -> Result<Option<Arc<Recorded>>, Error> {
        let mut lent = self.lend().await?;
        let holder = match DB::holder(lent.conn(), self.sql(), owner.hash()).await {
            // The claim finds out again, and knows how to go on after a broken connection.
            Err(error) if matches!(DB::fault(&error), Fault::Disconnected | Fault::WrongServer) => {
                return Ok(None);
            }
            holder => holder.map_err(store::error::<DB>)?,
        };
        self.give_back(lent);
        match Verdict::on(holder, owner.fingerprint())? {
            Verdict::Replay(recorded) => Ok(Some(recorded)),
            Verdict::Expired | Verdict::InFlight => Ok(None),
        }
    }

    /// Ends the transaction whose claim met a holder, and reads what that one says.
    pub(super) async fn judge(&self, mut lent: Lent<DB>, owner: &Owner) -> Result<Verdict, Error> {
        let holder = DB::end_held(lent.conn(), self.sql(), owner.hash()).await;
        let holder = holder.map_err(store::error::<DB>)?;
        self.give_back(lent);
        Verdict::on(holder, owner.fingerprint())
    }

    /// Waits in the database for a holder in another process. At most a quarter of the pool may: the rest serves other keys.
    ///
    /// # Errors
    /// InFlight at the deadline, and when too many wait already.
    pub(super) async fn await_elsewhere(
        &self,
        owner: &Owner,
        deadline: Instant,
    ) -> Result<(), Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        let permit = self.waiters().try_acquire();
        let (false, Ok(_permit)) = (left.is_zero(), permit) else {
            return Err(ErrorKind::InFlight.into());
        };
        let mut lent = self.lend().await?;
        let waited = DB::await_holder(lent.conn(), self.sql(), owner.hash(), left).await;
        waited.map_err(store::error::<DB>)?;
        lent.give_back();
        Ok(())
    }

    /// After a failed BEGIN or claim: a conflict or a broken connection is tried again, anything else is the caller's to know.
    pub(super) async fn recover(
        &self,
        mut lent: Lent<DB>,
        error: sqlx::Error,
        tries: &mut u32,
    ) -> Result<(), Error> {
        *tries += 1;
        let fault = DB::fault(&error);
        let is_useless = matches!(
            fault,
            Fault::Disconnected | Fault::WrongServer | Fault::ForeignKeysOff
        );
        if is_useless {
            // Closed, and the others with it: after a restart or a failover the next one would be as bad.
            drop(lent);
            self.close_idle();
        } else if DB::rollback(lent.conn()).await.is_ok() {
            // A connection that cannot roll back is closed.
            lent.give_back();
        }
        let again = match fault {
            Fault::Conflict => *tries < CONFLICTS,
            _ if is_useless => *tries < BROKEN,
            _ => false,
        };
        if !again {
            return Err(store::error::<DB>(error));
        }
        tokio::time::sleep(pause(*tries)).await;
        Ok(())
    }
}
