//! `retries`: the body runs again after a serialization failure or a deadlock, each time with its own copy of the bindings.

use std::{error::Error as _, ops::ControlFlow, time::Duration};

use super::{
    Conflict, HandlerReturn, Replay,
    call::{Early, End, finish, finish_unkeyed},
    policy::{Answered, Committed, Content, Ended, OnErr, Shape},
};
use crate::{
    error::Error,
    model::Handler,
    store::{Dialect, Fault},
};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How many runs are left.
#[derive(Debug)]
pub struct Turns {
    taken: u32,
    most: u32,
}

impl Turns {
    /// As many as the handler's `retries`.
    pub fn of(handler: &Handler) -> Self {
        Self {
            taken: 0,
            most: u32::from(handler.retries),
        }
    }

    async fn again<DB: Dialect, A, E: Conflict>(&mut self, ended: &Ended<A, E>) -> bool {
        if self.taken == self.most || !is_conflict::<DB, A, E>(ended) {
            return false;
        }
        tokio::time::sleep(pause(self.taken, random_fraction())).await;
        self.taken += 1;
        true
    }
}

/// [`leave`](super::call::leave), unless the body must run again.
pub async fn leave_or_again<C, O, S, M, R, DB>(
    end: End<DB, R, Early>,
    turns: &mut Turns,
) -> ControlFlow<S::Returns>
where
    DB: Dialect,
    R: HandlerReturn<Err: Conflict>,
    C: Content<R::Ok, Response: Replay<M>>,
    O: OnErr<R::Err>,
    S: Shape<Answered<C::Response, R::Err, O, M>, R::Err>,
{
    let ended = finish::<C, O, M, R, DB>(end).await;
    if turns.again::<DB, _, _>(&ended).await {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(S::returns(ended))
    }
}

/// [`commit`](super::call::commit), unless the body must run again.
pub async fn commit_or_again<C, S, R, DB>(
    end: End<DB, R, Error>,
    turns: &mut Turns,
) -> ControlFlow<S::Returns>
where
    DB: Dialect,
    R: HandlerReturn<Err: Conflict>,
    C: Content<R::Ok>,
    S: Shape<Committed<C::Response>, R::Err>,
{
    let ended = finish_unkeyed::<C, R, DB>(end).await;
    if turns.again::<DB, _, _>(&ended).await {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(S::returns(ended))
    }
}

/// A conflict can surface in the body, or only when the database checks at the commit.
fn is_conflict<DB: Dialect, A, E: Conflict>(ended: &Ended<A, E>) -> bool {
    let cause = match ended {
        Ended::Answered(_) => None,
        Ended::Erred(error) => error.database_error(),
        Ended::Failed(error) => error.source().and_then(|source| source.downcast_ref()),
    };
    cause.is_some_and(|cause| DB::fault(cause) == Fault::Conflict)
}

/// Doubles each time, and the upper half is random, so that those who met once do not meet again.
fn pause(taken: u32, fraction: f64) -> Duration {
    let longest = FIRST_PAUSE
        .saturating_mul(1 << taken.min(10))
        .min(LONGEST_PAUSE);
    longest.mul_f64(0.5 + fraction / 2.0)
}

fn random_fraction() -> f64 {
    f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
}

/// A binding of a handler with `retries`: each run of the body gets its own copy.
#[diagnostic::on_unimplemented(
    message = "`retries` runs the body again, and `{Self}` cannot be copied for that",
    label = "`Clone` is missing for this binding",
    note = "derive `Clone`, take it as `Arc<{Self}>`, or leave `retries` out"
)]
pub trait Again: Sized {
    /// The copy.
    fn again(&self) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T: Clone> Again for T {
    fn again(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        assert_eq!(pause(0, 0.0), Duration::from_millis(5));
        assert_eq!(pause(0, 1.0), Duration::from_millis(10));
        assert_eq!(pause(3, 1.0), Duration::from_millis(80));
        assert_eq!(pause(200, 1.0), LONGEST_PAUSE);
        assert!((0.0..=1.0).contains(&random_fraction()));
    }
}
