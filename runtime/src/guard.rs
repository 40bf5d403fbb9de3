//! Asks whether the code that runs now is inside the body of a claimed call.
//!
//! Inside the body a database transaction is open. A call to another service there holds locks for as long as the other
//! side takes, cannot be rolled back, and is made again when the transaction is retried. A client, or its middleware, can
//! refuse such calls:
//!
//! ```
//! use effectively::guard::{self, InsideClaim};
//!
//! async fn charge_card(amount: i64) -> Result<(), InsideClaim> {
//!     guard::refuse_inside_claim()?;
//!     // … send the request …
//!     # let _ = amount;
//!     Ok(())
//! }
//! # assert!(!guard::inside_claim());
//! ```
//!
//! The mark belongs to the task: what the body hands to `tokio::spawn` or to another thread is not inside.

use std::future::Future;

use tokio::task::futures::TaskLocalFuture;

tokio::task_local! {
    static INSIDE: ();
}

/// Whether the current task is inside the body of a claimed call, so that a transaction is open.
pub fn inside_claim() -> bool {
    INSIDE.try_with(|()| ()).is_ok()
}

/// Refuses to go on inside the body of a claimed call.
///
/// # Errors
/// [`InsideClaim`] when [`inside_claim`] is true.
pub fn refuse_inside_claim() -> Result<(), InsideClaim> {
    if inside_claim() {
        Err(InsideClaim)
    } else {
        Ok(())
    }
}

/// An outside call was about to be made inside the body of a claimed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an outside call inside the body of an idempotent handler: the transaction would stay open for as long as it takes, \
     and a rollback could not undo it; return an event and make the call from the relay's `effect` sink, after the commit"
)]
#[non_exhaustive]
pub struct InsideClaim;

/// Marks a body. The mark ends with the future, also when it is dropped.
pub(crate) fn inside<F: Future>(body: F) -> TaskLocalFuture<(), F> {
    INSIDE.scope((), body)
}
