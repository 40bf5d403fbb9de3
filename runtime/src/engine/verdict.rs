//! What a holder's row means for the call that met it.

use std::sync::Arc;

use crate::{
    error::{Error, ErrorKind},
    model::{Fingerprint, Recorded},
    store::Holder,
};

#[derive(Debug)]
pub(super) enum Verdict {
    /// Complete, with the same content: answer from it.
    Replay(Arc<Recorded>),
    /// Complete, and its retention is over: the key is new again.
    Expired,
    /// Not visible: its transaction is open, or has just been rolled back.
    InFlight,
}

impl Verdict {
    /// # Errors
    /// Mismatch for other content, Interrupted for a row without outcome, Decode for an outcome that is not ours.
    pub(super) fn on(
        holder: Option<Holder>,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Self, Error> {
        let Some(holder) = holder else {
            return Ok(Self::InFlight);
        };
        let Some(outcome) = holder.outcome else {
            return Err(ErrorKind::Interrupted.into());
        };
        if holder.expired {
            return Ok(Self::Expired);
        }
        // A handler that had no fingerprint when the outcome was recorded, or has none now, compares nothing.
        if holder
            .fingerprint
            .zip(fingerprint)
            .is_some_and(|(first, now)| first != now)
        {
            return Err(ErrorKind::Mismatch.into());
        }
        Ok(Self::Replay(Arc::new(Recorded::decode(&outcome)?)))
    }
}
