//! Why a call gave no outcome: the handler's error, or the toolkit's.

use std::{error::Error as StdError, fmt};

use crate::error::Error;

/// What a rewritten handler returns in place of its error `E`.
///
/// The toolkit's part answers by itself in a web framework (400, 409, 422, 503 …), so that an application's error type can
/// neither hide it nor turn it into a 500. `E` needs no `From<effectively::Error>`.
#[derive(Debug)]
pub enum Failure<E> {
    /// The body returned this error. Its effects are rolled back and the key is free.
    Handler(E),
    /// The call could not be made, or not be finished.
    Toolkit(Error),
}

impl<E> Failure<E> {
    /// Whether the same call with the same key may succeed later. An error of the handler is never retryable by itself.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Handler(_) => false,
            Self::Toolkit(error) => error.is_retryable(),
        }
    }
}

impl<E> From<Error> for Failure<E> {
    fn from(error: Error) -> Self {
        Self::Toolkit(error)
    }
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler(error) => error.fmt(f),
            Self::Toolkit(error) => error.fmt(f),
        }
    }
}

impl<E: StdError> StdError for Failure<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Handler(error) => error.source(),
            Self::Toolkit(error) => error.source(),
        }
    }
}
