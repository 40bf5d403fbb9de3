//! What the options change in the types of a call, as types without values. Generated code names one per axis:
//!
//! | axis | types |
//! |---|---|
//! | what `Ok` holds | [`Plain`], [`Emitting`] (`#[outbox]`) |
//! | what an error does | [`Release`], [`Record`] (`on_error = "record"`) |
//! | what is returned | [`Wrapped`], [`Transparent`] |

use std::marker::PhantomData;

use super::{Emit, Failure, HandlerReturn, IntoEmission, Outcome, Refusal, Replay, emit::Events};
use crate::{
    engine::Answer,
    error::{Error, ErrorKind},
    model::Recorded,
};

/// What an annotated function with a key returns.
pub type Answers<R, C> = Result<Outcome<Response<R, C>>, Failure<<R as HandlerReturn>::Err>>;
/// What an annotated function without a key returns.
pub type Commits<R, C> = Result<Response<R, C>, Failure<<R as HandlerReturn>::Err>>;
/// What a transparent function returns.
pub type Bare<R, C> = Result<Response<R, C>, <R as HandlerReturn>::Err>;

type Response<R, C> = <C as Content<<R as HandlerReturn>::Ok>>::Response;

/// `Ok` holds the response.
#[derive(Debug)]
pub enum Plain {}
/// `Ok` holds the response and events.
#[derive(Debug)]
pub enum Emitting {}

/// Takes apart what a body returned in `Ok`.
pub trait Content<T> {
    /// The part that answers the caller.
    type Response;

    /// The response and the events.
    fn split(ok: T) -> (Self::Response, Events);
}

impl<T> Content<T> for Plain {
    type Response = T;

    fn split(ok: T) -> (T, Events) {
        Emit::new(ok).into_emission()
    }
}

impl<T: IntoEmission> Content<T> for Emitting {
    type Response = T::Response;

    fn split(ok: T) -> (T::Response, Events) {
        ok.into_emission()
    }
}

/// An error frees the key.
#[derive(Debug)]
pub enum Release {}
/// An error that calls itself final is recorded.
#[derive(Debug)]
pub enum Record {}

/// What becomes of an error of the body.
pub trait OnErr<E> {
    /// The refusal to record, if the error is one.
    fn refusal(error: &E) -> Option<Recorded>;
    /// The error of a replay, from the recorded refusal.
    fn restore(recorded: &Recorded) -> Option<E>;
}

impl<E> OnErr<E> for Release {
    fn refusal(_: &E) -> Option<Recorded> {
        None
    }

    fn restore(_: &Recorded) -> Option<E> {
        None
    }
}

impl<E: Refusal> OnErr<E> for Record {
    fn refusal(error: &E) -> Option<Recorded> {
        error.refusal().filter(Recorded::is_final)
    }

    fn restore(recorded: &Recorded) -> Option<E> {
        E::replay(recorded)
    }
}

/// How a call ended: answered, or with an error of the body after which everything is rolled back, or the toolkit failed.
#[derive(Debug)]
pub enum Ended<A, E> {
    /// Answered, or committed without a key.
    Answered(A),
    /// The body's error.
    Erred(E),
    /// The toolkit's error.
    Failed(Error),
}

/// The answer of a call with a key.
#[derive(Debug)]
pub struct Answered<T, E, O, M> {
    answer: Answer,
    /// What the body returned, unless the answer is another call's.
    own: Option<Result<T, E>>,
    types: PhantomData<(O, M)>,
}

impl<T, E, O, M> Answered<T, E, O, M> {
    pub(super) fn replay(answer: Answer) -> Self {
        Self {
            answer,
            own: None,
            types: PhantomData,
        }
    }

    /// A commit whose acknowledgement was lost can turn out to be another call's.
    pub(super) fn by_body(answer: Answer, own: Result<T, E>) -> Self {
        let own = (!answer.replay).then_some(own);
        Self {
            answer,
            own,
            types: PhantomData,
        }
    }
}

/// The response of a call without a key.
#[derive(Debug)]
pub struct Committed<T>(pub(super) T);

/// The handler returns the recorded answer and both kinds of error.
#[derive(Debug)]
pub enum Wrapped {}
/// The handler returns `Result<T, E>` as it was written.
#[derive(Debug)]
pub enum Transparent {}

/// Puts the end of a call into the type that the rewritten handler returns.
pub trait Shape<A, E> {
    /// That type.
    type Returns;

    /// What is returned.
    fn returns(ended: Ended<A, E>) -> Self::Returns;
}

impl<T, E, O, M> Shape<Answered<T, E, O, M>, E> for Wrapped {
    type Returns = Result<Outcome<T>, Failure<E>>;

    fn returns(ended: Ended<Answered<T, E, O, M>, E>) -> Self::Returns {
        wrapped(ended).map(|answered| Outcome::new(answered.answer))
    }
}

impl<T, E> Shape<Committed<T>, E> for Wrapped {
    type Returns = Result<T, Failure<E>>;

    fn returns(ended: Ended<Committed<T>, E>) -> Self::Returns {
        wrapped(ended).map(|committed| committed.0)
    }
}

impl<T, E, O, M> Shape<Answered<T, E, O, M>, E> for Transparent
where
    T: Replay<M>,
    E: FromToolkit,
    O: OnErr<E>,
{
    type Returns = Result<T, E>;

    fn returns(ended: Ended<Answered<T, E, O, M>, E>) -> Self::Returns {
        let answered = transparent(ended)?;
        let recorded = &answered.answer.recorded;
        match answered.own {
            Some(own) => own,
            None if !recorded.is_refusal() => T::replay(recorded).map_err(E::from_toolkit),
            None => {
                Err(O::restore(recorded)
                    .unwrap_or_else(|| E::from_toolkit(ErrorKind::Decode.into())))
            }
        }
    }
}

impl<T, E: FromToolkit> Shape<Committed<T>, E> for Transparent {
    type Returns = Result<T, E>;

    fn returns(ended: Ended<Committed<T>, E>) -> Self::Returns {
        transparent(ended).map(|committed| committed.0)
    }
}

fn wrapped<A, E>(ended: Ended<A, E>) -> Result<A, Failure<E>> {
    match ended {
        Ended::Answered(answered) => Ok(answered),
        Ended::Erred(error) => Err(Failure::Handler(error)),
        Ended::Failed(error) => Err(Failure::Toolkit(error)),
    }
}

fn transparent<A, E: FromToolkit>(ended: Ended<A, E>) -> Result<A, E> {
    match ended {
        Ended::Answered(answered) => Ok(answered),
        Ended::Erred(error) => Err(error),
        Ended::Failed(error) => Err(E::from_toolkit(error)),
    }
}

/// An error type that can carry the toolkit's own.
#[diagnostic::on_unimplemented(
    message = "`transparent` needs an error type that can carry the toolkit's own errors",
    label = "`{Self}` needs `From<effectively::Error>`",
    note = "add a variant: `#[error(transparent)] Effectively(#[from] effectively::Error)`",
    note = "or leave `transparent` out: then the function returns `Failure<{Self}>`"
)]
pub trait FromToolkit: Sized {
    /// The error that carries it.
    fn from_toolkit(error: Error) -> Self;
}

#[diagnostic::do_not_recommend]
impl<E: From<Error>> FromToolkit for E {
    fn from_toolkit(error: Error) -> Self {
        error.into()
    }
}
