//! Events that are published alone after a relay has died: a death counts against one only if it came while a sink was at it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Shared;
use crate::{
    error::Error,
    model::backoff::pause,
    store::{Dialect, Lease},
};

/// Those that the database has noted, or may have, and that were not taken back yet.
#[derive(Debug, Default)]
pub(super) struct Suspects(Mutex<Vec<(Lease, i64)>>);

/// How often a note is tried to be taken back when its lease is over: about half a second.
const AFTER_THE_LEASE: u32 = 8;

/// What the database knows of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// It may be published.
    Harmless,
    /// So many relays have died while they published it.
    Deadly(u16),
    /// The lease is lost.
    Lost,
}

/// Notes that the event is about to be published, in the database: the next relay is to know if this one dies of it.
pub(super) async fn note<DB: Dialect>(
    shared: &Shared<DB>,
    lease: Lease,
    outbox_id: i64,
) -> Result<Noted, Error> {
    shared.suspects.lock().push((lease, outbox_id));
    match shared.port.suspect(lease, outbox_id).await {
        Ok(Some(seen)) if seen > shared.settings.max_crashes => Ok(Noted::Deadly(seen - 1)),
        Ok(Some(_)) => Ok(Noted::Harmless),
        Ok(None) => Ok(Noted::Lost),
        Err(error) => {
            // It may have been noted.
            acquit(shared, lease, outbox_id).await;
            Err(error)
        }
    }
}

/// The sink has answered, or was not asked. Tried until it is taken back, and for a moment when the lease is over.
pub(super) async fn acquit<DB: Dialect>(shared: &Shared<DB>, lease: Lease, outbox_id: i64) {
    let mut tries = 0;
    while let Err(error) = shared.port.acquit(lease, outbox_id).await {
        tracing::warn!(target: "effectively::relay", %error, "the database failed");
        tries += 1;
        let held = shared.partitions.until(&[lease]).is_some();
        if !error.is_retryable() || !held && tries > AFTER_THE_LEASE {
            break;
        }
        tokio::time::sleep(pause(tries)).await;
    }
    let noted = (lease, outbox_id);
    shared.suspects.lock().retain(|suspect| *suspect != noted);
}

/// What was cut short by an end in order: nobody has died.
pub(super) async fn acquit_all<DB: Dialect>(shared: &Shared<DB>) {
    let all = std::mem::take(&mut *shared.suspects.lock());
    for (lease, outbox_id) in all {
        if let Err(error) = shared.port.acquit(lease, outbox_id).await {
            tracing::warn!(target: "effectively::relay", %error, "the database failed");
        }
    }
}

impl Suspects {
    fn lock(&self) -> MutexGuard<'_, Vec<(Lease, i64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
