//! When the events become due again that this relay has postponed.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Known by this relay alone: what another one has postponed becomes due at one of the regular looks.
#[derive(Debug, Default)]
pub(super) struct Retries(Mutex<BinaryHeap<Reverse<Instant>>>);

impl Retries {
    pub(super) fn add(&self, delay: Duration) {
        if let Some(due) = Instant::now().checked_add(delay) {
            self.lock().push(Reverse(due));
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.lock().peek().map(|next| next.0)
    }

    /// Those that are due are looked for now.
    pub(super) fn forget_due(&self, now: Instant) {
        let mut retries = self.lock();
        while retries.peek().is_some_and(|next| next.0 <= now) {
            retries.pop();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BinaryHeap<Reverse<Instant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
