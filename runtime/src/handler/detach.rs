//! `detach`: the call runs in its own task, so that a client that hangs up does not stop it.

use std::future::Future;

use tracing::Instrument;

use super::policy::FromToolkit;
use crate::{
    error::{Error, ErrorKind},
    guard,
};

/// Runs a whole call in its own task, inside the current span, and waits for it.
///
/// # Errors
/// The call's own, [`ErrorKind::Panicked`] without the panic's message, or [`ErrorKind::CommitUnknown`] when the runtime
/// was shut down underneath it.
pub async fn detach<T, E>(call: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: FromToolkit + Send + 'static,
{
    // The new task does not inherit the mark, and would wait for the transaction around it.
    if guard::inside_claim() {
        return Err(E::from_toolkit(ErrorKind::NestedCall.into()));
    }
    match tokio::spawn(call.in_current_span()).await {
        Ok(returned) => returned,
        Err(join) => {
            let kind = if join.is_panic() {
                ErrorKind::Panicked
            } else {
                ErrorKind::CommitUnknown
            };
            Err(E::from_toolkit(Error::from(kind)))
        }
    }
}
