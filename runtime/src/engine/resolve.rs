//! After a COMMIT whose answer never came, and after a body that ended its transaction.
//!
//! A plain SELECT could say "absent" while the first COMMIT is still being executed. So the claim itself is run again, with
//! the same attempt, on a new connection: the unique key and its lock decide.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{
    claim::{Answer, Owner},
    ledger::Ledger,
    verdict::Verdict,
};
use crate::{
    error::{Error, ErrorKind},
    model::{Recorded, backoff::pause},
    store::{self, Dialect},
};

impl<DB: Dialect> Ledger<DB> {
    /// Finds out what became of the COMMIT, within a bound.
    pub(super) async fn resolve(
        &self,
        owner: Owner,
        recorded: Arc<Recorded>,
        lost: sqlx::Error,
    ) -> Result<Answer, Error> {
        let deadline = Instant::now() + self.settings().unknown_commit_bound;
        let answer = timeout_at(deadline, async {
            let mut tries = 0;
            loop {
                match self.ask(&owner, &recorded, deadline).await {
                    Ok(Some(answer)) => return Ok(answer),
                    Ok(None) => {}
                    Err(error) if *error.kind() == ErrorKind::Unavailable => {}
                    Err(error) => return Err(error),
                }
                tries += 1;
                tokio::time::sleep(pause(tries)).await;
            }
        });
        let answer = match answer.await {
            Ok(answer) => answer?,
            Err(_) => return Err(store::error_as::<DB>(ErrorKind::CommitUnknown, lost)),
        };
        self.remembered().insert(owner.hash());
        owner.pass_on(&answer.recorded);
        Ok(answer)
    }

    /// Asks once. `None`: the first COMMIT is still being executed.
    async fn ask(
        &self,
        owner: &Owner,
        recorded: &Arc<Recorded>,
        deadline: Instant,
    ) -> Result<Option<Answer>, Error> {
        let mut lent = self.lend().await.map_err(|_| ErrorKind::Unavailable)?;
        let free = DB::begin(lent.conn(), self.sql(), &owner.claim())
            .await
            .map_err(unanswered::<DB>)?;
        if free {
            DB::rollback(lent.conn()).await.map_err(unanswered::<DB>)?;
            lent.give_back();
            return Err(ErrorKind::NotCommitted.into());
        }
        let holder = DB::end_held(lent.conn(), self.sql(), owner.hash())
            .await
            .map_err(unanswered::<DB>)?;
        // While a takeover is being committed, the expired row that it deletes is still the one to be read.
        let in_flight = holder.as_ref().is_none_or(|holder| {
            owner.takes_over() && holder.expired && holder.attempt != owner.attempt()
        });
        if in_flight {
            let left = deadline.saturating_duration_since(Instant::now());
            DB::await_holder(lent.conn(), self.sql(), owner.hash(), left)
                .await
                .map_err(unanswered::<DB>)?;
        }
        lent.give_back();
        if in_flight {
            return Ok(None);
        }
        if holder
            .as_ref()
            .is_some_and(|holder| holder.attempt == owner.attempt() && holder.outcome.is_some())
        {
            return Ok(Some(Answer {
                recorded: Arc::clone(recorded),
                replay: false,
            }));
        }
        match Verdict::on(holder, owner.fingerprint())? {
            Verdict::Replay(theirs) => Ok(Some(Answer {
                recorded: theirs,
                replay: true,
            })),
            Verdict::Expired => Err(ErrorKind::NotCommitted.into()),
            Verdict::InFlight => Ok(None),
        }
    }

    /// Marks the key, so that nobody runs the call again before an operator has looked. Where a ROLLBACK of ours undoes
    /// whatever the body did after it ended its transaction, the row that the body itself committed is the mark.
    pub(super) async fn interrupt(&self, owner: &Owner) {
        tracing::error!(target: "effectively::claim", scope = owner.claim().scope, "the handler's body ended its own transaction");
        if !DB::WRITES_OUTLIVE_ROLLBACK {
            return;
        }
        let marked = async {
            let mut lent = self.lend().await?;
            DB::interrupt(lent.conn(), self.sql(), &owner.claim())
                .await
                .map_err(store::error::<DB>)?;
            lent.give_back();
            Ok::<_, Error>(())
        };
        if let Err(error) = marked.await {
            tracing::error!(target: "effectively::claim", scope = owner.claim().scope, %error, "the key could not be marked as interrupted");
        }
    }
}

/// Whatever keeps us from asking, a deadlock also, says nothing of the COMMIT: it is asked for again.
fn unanswered<DB: Dialect>(error: sqlx::Error) -> Error {
    store::error_as::<DB>(ErrorKind::Unavailable, error)
}
