//! Pausing and resuming topics of a running relay.

use std::{fmt, sync::Arc};

use super::Shared;
use crate::{error::Error, model::Pattern, store::Dialect};

/// Pauses and resumes topics of a running relay. From [`Relay::control`](crate::Relay::control); cheap to clone.
#[derive(Clone)]
pub struct Control {
    relay: Arc<dyn Pausing>,
}

trait Pausing: Send + Sync {
    fn pause(&self, pattern: Pattern);
    fn resume(&self, pattern: &Pattern);
}

impl Control {
    pub(super) fn new<DB: Dialect>(relay: Arc<Shared<DB>>) -> Self {
        Self { relay }
    }

    /// Publishes nothing of these topics from now on, but for what is on its way already: a topic, a beginning as in
    /// `mail.*`, or `*` for all. The events wait in the outbox. Only this relay pauses: tell each one that runs.
    ///
    /// # Errors
    /// [`ErrorKind::Settings`](crate::ErrorKind::Settings) when it is neither.
    pub fn pause(&self, topics: &str) -> Result<(), Error> {
        self.relay.pause(Pattern::new(topics)?);
        Ok(())
    }

    /// Publishes again what was paused with the same words.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub fn resume(&self, topics: &str) -> Result<(), Error> {
        self.relay.resume(&Pattern::new(topics)?);
        Ok(())
    }
}

impl<DB: Dialect> Pausing for Shared<DB> {
    fn pause(&self, pattern: Pattern) {
        self.routes.pause(pattern);
    }

    fn resume(&self, pattern: &Pattern) {
        self.routes.resume(pattern);
        self.changed.notify_one();
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}
