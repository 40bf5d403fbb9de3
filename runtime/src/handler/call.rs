//! The path of one call around the body, for generated code and [`Ledger::run`](crate::Ledger::run):
//! [`enter`], then [`tx`] and [`inside`] around the body, then [`leave`].

use std::future::Future;

use tracing::Instrument;

use super::{
    HandlerReturn, Replay,
    policy::{Answered, Committed, Content, Ended, OnErr, Shape},
};
use crate::{
    engine::{Answer, Claim, Entered, Ledger, observed},
    error::{Error, ErrorKind},
    guard,
    model::{Fingerprint, Handler, Key, Recorded},
    store::Dialect,
};

/// What the body left behind: the claim and what it returned, or why it did not run.
pub type End<DB, R, X> = Result<(Claim<DB>, R), X>;

/// Why a body did not run.
#[derive(Debug)]
pub enum Early {
    /// The call had been answered before.
    Replay(Answer),
    /// The call could not be made.
    Failed(Error),
}

/// Claims the key.
///
/// # Errors
/// `Early` when the body must not run.
pub async fn enter<DB: Dialect>(
    ledger: &Ledger<DB>,
    handler: &Handler,
    key: Result<Key, Error>,
    fingerprint: Result<Option<Fingerprint>, Error>,
) -> Result<Claim<DB>, Early> {
    let (key, fingerprint) = key
        .and_then(|key| Ok((key, fingerprint?)))
        .map_err(Early::Failed)?;
    let scope = key.scope().clone();
    let scope = scope.as_str();
    let entered = ledger
        .enter(handler, key, fingerprint)
        .instrument(observed::span("claim", scope))
        .await;
    match entered {
        Ok(Entered::Claimed(claim)) => Ok(claim),
        Ok(Entered::Replay(answer)) => {
            observed::count(scope, "replayed");
            Err(Early::Replay(answer))
        }
        Err(error) => {
            observed::count(scope, error.code());
            Err(Early::Failed(error))
        }
    }
}

/// Opens a transaction without a key, for `#[outbox]` alone.
///
/// # Errors
/// When the transaction could not be had. The body must not run.
pub async fn enter_unkeyed<DB: Dialect>(
    ledger: &Ledger<DB>,
    handler: &Handler,
) -> Result<Claim<DB>, Error> {
    ledger.enter_unkeyed(handler).await
}

/// The open transaction, to be lent to the body.
pub fn tx<DB: Dialect>(claim: &mut Claim<DB>) -> &mut DB::Connection {
    claim.tx()
}

/// Marks the body for [`guard::inside_claim`].
pub fn inside<F: Future>(body: F) -> impl Future<Output = F::Output> {
    guard::inside(body)
}

/// Ends a call: records and commits, or rolls back, and says so in the type that the handler returns.
pub async fn leave<C, O, S, M, R, DB>(end: End<DB, R, Early>) -> S::Returns
where
    DB: Dialect,
    R: HandlerReturn,
    C: Content<R::Ok, Response: Replay<M>>,
    O: OnErr<R::Err>,
    S: Shape<Answered<C::Response, R::Err, O, M>, R::Err>,
{
    S::returns(finish::<C, O, M, R, DB>(end).await)
}

/// Ends a call without a key.
pub async fn commit<C, S, R, DB>(end: End<DB, R, Error>) -> S::Returns
where
    DB: Dialect,
    R: HandlerReturn,
    C: Content<R::Ok>,
    S: Shape<Committed<C::Response>, R::Err>,
{
    S::returns(finish_unkeyed::<C, R, DB>(end).await)
}

pub(super) async fn finish<C, O, M, R, DB>(
    end: End<DB, R, Early>,
) -> Ended<Answered<C::Response, R::Err, O, M>, R::Err>
where
    DB: Dialect,
    R: HandlerReturn,
    C: Content<R::Ok, Response: Replay<M>>,
    O: OnErr<R::Err>,
{
    let (claim, returned) = match end {
        Ok(ran) => ran,
        Err(Early::Replay(answer)) => return Ended::Answered(Answered::replay(answer)),
        Err(Early::Failed(error)) => return Ended::Failed(error),
    };
    let (answer, own) = match returned.into_result() {
        Ok(ok) => {
            let (mut response, events) = C::split(ok);
            let ready = events
                .into_staged()
                .and_then(|events| Ok((response.record()?, events)));
            let (recorded, events) = match ready {
                Ok(ready) => ready,
                Err(error) => return give_back(claim, Ended::Failed(error)).await,
            };
            // A response that asks for a retry must not be all that a retry ever gets.
            if !recorded.is_final() {
                let answer = Answer::unrecorded(recorded);
                let answered = Answered::by_body(answer, Ok(response));
                return give_back(claim, Ended::Answered(answered)).await;
            }
            if let Err(error) = check_replay::<C::Response, M>(&recorded) {
                return give_back(claim, Ended::Failed(error)).await;
            }
            (claim.complete(recorded, events).await, Ok(response))
        }
        Err(error) => match O::refusal(&error) {
            Some(refusal) => (claim.refuse(refusal).await, Err(error)),
            None => return give_back(claim, Ended::Erred(error)).await,
        },
    };
    match answer {
        Ok(answer) => Ended::Answered(Answered::by_body(answer, own)),
        Err(error) => Ended::Failed(error),
    }
}

pub(super) async fn finish_unkeyed<C, R, DB>(
    end: End<DB, R, Error>,
) -> Ended<Committed<C::Response>, R::Err>
where
    DB: Dialect,
    R: HandlerReturn,
    C: Content<R::Ok>,
{
    let (claim, returned) = match end {
        Ok(ran) => ran,
        Err(error) => return Ended::Failed(error),
    };
    let (response, events) = match returned.into_result() {
        Ok(ok) => C::split(ok),
        Err(error) => return give_back(claim, Ended::Erred(error)).await,
    };
    let events = match events.into_staged() {
        Ok(events) => events,
        Err(error) => return give_back(claim, Ended::Failed(error)).await,
    };
    match claim.commit_unkeyed(events).await {
        Ok(()) => Ended::Answered(Committed(response)),
        Err(error) => Ended::Failed(error),
    }
}

/// Debug builds restore every answer before it is committed: one that cannot be would be an error on each replay.
fn check_replay<R: Replay<M>, M>(recorded: &Recorded) -> Result<(), Error> {
    if cfg!(debug_assertions)
        && let Err(error) = R::restore(recorded)
    {
        return Err(Error::caused_by(ErrorKind::Encode("the response"), error));
    }
    Ok(())
}

/// Rolls back before the caller learns anything, so that a retry does not meet its own claim.
async fn give_back<DB: Dialect, A, E>(claim: Claim<DB>, ended: Ended<A, E>) -> Ended<A, E> {
    match claim.release().await {
        Ok(()) => ended,
        Err(error) => Ended::Failed(error),
    }
}
