//! The answer of a call: its recorded bytes.

use std::{error::Error as StdError, fmt, marker::PhantomData, sync::Arc};

use super::{Failure, Refusal, Replay};
use crate::{engine::Answer, error::ErrorKind, model::Recorded};

/// The recorded answer of a call, in place of the `R` that the handler's body returned.
///
/// It is encoded once, and the first answer and every replay are made from those bytes, so they cannot differ. In a web
/// framework it is a response. Elsewhere [`into_result`](Self::into_result) gives the value. It does not dereference to
/// `R`, because a recorded refusal is none.
pub struct Outcome<R> {
    recorded: Arc<Recorded>,
    replay: bool,
    response: PhantomData<fn() -> R>,
}

impl<R> Outcome<R> {
    pub(crate) fn new(answer: Answer) -> Self {
        Self {
            recorded: answer.recorded,
            replay: answer.replay,
            response: PhantomData,
        }
    }

    /// Whether the body did not run, because an earlier call with this key had been answered.
    pub fn is_replay(&self) -> bool {
        self.replay
    }

    /// The stored form of the answer.
    pub fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    /// The response, or why there is none.
    ///
    /// # Errors
    /// [`Failure::Handler`] with the recorded refusal (`on_error = "record"`), or [`Failure::Toolkit`] with
    /// [`ErrorKind::Decode`] when what is recorded cannot be read as an `R`.
    pub fn into_result<M>(self) -> Result<R, Failure<Refused>>
    where
        R: Replay<M>,
    {
        if self.recorded.is_refusal() {
            return Err(Failure::Handler(Refused(self.recorded)));
        }
        let response = if self.replay {
            R::replay(&self.recorded)
        } else {
            R::restore(&self.recorded)
        };
        response.map_err(Failure::Toolkit)
    }
}

impl<R> Clone for Outcome<R> {
    fn clone(&self) -> Self {
        Self {
            recorded: Arc::clone(&self.recorded),
            ..*self
        }
    }
}

/// Shows no payload.
impl<R> fmt::Debug for Outcome<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refusal = self.recorded.is_refusal();
        f.debug_struct("Outcome")
            .field("replay", &self.replay)
            .field("refusal", &refusal)
            .finish_non_exhaustive()
    }
}

/// A refusal that was recorded as the final answer of a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Refused(Arc<Recorded>);

impl Refused {
    /// The stored form of the refusal.
    pub fn recorded(&self) -> &Recorded {
        &self.0
    }

    /// The error again, if its type can read it back ([`Refusal::from_refusal`]).
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] when it cannot.
    pub fn into_error<E: Refusal>(self) -> Result<E, crate::Error> {
        E::from_refusal(&self.0).ok_or_else(|| ErrorKind::Decode.into())
    }
}

/// Shows no payload.
impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("status", &self.0.status())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the handler refused this operation for good")
    }
}

impl StdError for Refused {}
