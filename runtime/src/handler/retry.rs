//! `retries`: the body runs again after a serialization failure or a deadlock, each time with its own copy of the bindings.

use std::{ops::ControlFlow, time::Duration};

use super::{
    Conflict, HandlerReturn, Replay,
    call::{Early, End, finish, finish_unkeyed},
    policy::{Answered, Committed, Content, Ended, OnErr, Shape},
};
use crate::{
    error::Error,
    model::{Handler, backoff::pause_after_conflict},
    store::{self, Dialect, Fault},
};

/// How many runs are left, and how to look for the database's error in the handler's.
#[derive(Debug)]
pub struct Turns<E> {
    taken: u32,
    most: u32,
    database_error: fn(&E) -> Option<&sqlx::Error>,
}

impl<E: Conflict> Turns<E> {
    /// As many as the handler's `retries`.
    pub fn of(handler: &Handler) -> Self {
        Self {
            taken: 0,
            most: u32::from(handler.retries),
            database_error: E::database_error,
        }
    }
}

impl<E> Turns<E> {
    /// How long to wait before the body runs again, if it shall.
    fn next<DB: Dialect, A>(&mut self, ended: &Ended<A, E>) -> Option<Duration> {
        if self.taken == self.most || !self.is_conflict::<DB, A>(ended) {
            return None;
        }
        self.taken += 1;
        Some(pause_after_conflict(self.taken))
    }

    /// A conflict can surface in the body, or only when the database checks at the commit.
    fn is_conflict<DB: Dialect, A>(&self, ended: &Ended<A, E>) -> bool {
        match ended {
            Ended::Answered(_) => false,
            Ended::Erred(error) => (self.database_error)(error)
                .is_some_and(|cause| DB::fault(cause) == Fault::Conflict),
            Ended::Failed(error) => store::is_conflict(error),
        }
    }
}

/// [`leave`](super::call::leave), unless the body must run again.
pub async fn leave_or_again<C, O, S, M, R, DB>(
    end: End<DB, R, Early>,
    turns: &mut Turns<R::Err>,
) -> ControlFlow<S::Returns>
where
    DB: Dialect,
    R: HandlerReturn,
    C: Content<R::Ok, Response: Replay<M>>,
    O: OnErr<R::Err>,
    S: Shape<Answered<C::Response, R::Err, O, M>, R::Err>,
{
    let ended = finish::<C, O, M, R, DB>(end).await;
    let pause = turns.next::<DB, _>(&ended);
    go_on::<S, _, _>(ended, pause).await
}

/// [`commit`](super::call::commit), unless the body must run again.
pub async fn commit_or_again<C, S, R, DB>(
    end: End<DB, R, Error>,
    turns: &mut Turns<R::Err>,
) -> ControlFlow<S::Returns>
where
    DB: Dialect,
    R: HandlerReturn,
    C: Content<R::Ok>,
    S: Shape<Committed<C::Response>, R::Err>,
{
    let ended = finish_unkeyed::<C, R, DB>(end).await;
    let pause = turns.next::<DB, _>(&ended);
    go_on::<S, _, _>(ended, pause).await
}

async fn go_on<S: Shape<A, E>, A, E>(
    ended: Ended<A, E>,
    pause: Option<Duration>,
) -> ControlFlow<S::Returns> {
    let Some(pause) = pause else {
        return ControlFlow::Break(S::returns(ended));
    };
    drop(ended);
    tokio::time::sleep(pause).await;
    ControlFlow::Continue(())
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
