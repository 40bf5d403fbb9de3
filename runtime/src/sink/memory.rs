//! A sink that keeps what it gets, for tests.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Delivery, Sink};
use crate::model::{Envelope, Lane};

type Judge = dyn Fn(&Envelope) -> Option<Delivery> + Send + Sync;

/// Keeps what is published, in its order. Clones share it.
///
/// ```
/// use effectively::sink::{Delivery, Memory};
///
/// let sink = Memory::new();
/// let refusing = Memory::new().judged_by(|event| {
///     (event.data.len() > 1024).then(|| Delivery::refused_for_good("over 1 KiB"))
/// });
/// assert!(sink.published().is_empty());
/// ```
#[derive(Clone, Default)]
pub struct Memory {
    published: Arc<Mutex<Vec<Envelope>>>,
    judge: Option<Arc<Judge>>,
}

impl Memory {
    /// Accepts everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers with what the function says, and accepts the event if it says nothing.
    pub fn judged_by(
        mut self,
        judge: impl Fn(&Envelope) -> Option<Delivery> + Send + Sync + 'static,
    ) -> Self {
        self.judge = Some(Arc::new(judge));
        self
    }

    /// What was published so far.
    pub fn published(&self) -> Vec<Envelope> {
        self.lock().clone()
    }

    /// How much was published so far.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing was published so far.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Gives back what was published, and forgets it.
    pub fn take(&self) -> Vec<Envelope> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Envelope>> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, event: &Envelope) -> Delivery {
        let judged = self.judge.as_ref().and_then(|judge| judge(event));
        judged.unwrap_or(Delivery::Published)
    }
}

impl Sink for Memory {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let mut published = self.lock();
        let mut stopped: HashSet<Lane> = HashSet::new();
        let mut answers = Vec::with_capacity(batch.len());
        for event in batch {
            let answer = if !stopped.is_empty() && stopped.contains(&event.lane()) {
                Delivery::Held
            } else {
                self.judge(event)
            };
            match &answer {
                Delivery::Published => published.push(event.clone()),
                _ => _ = stopped.insert(event.lane()),
            }
            answers.push(answer);
        }
        answers
    }

    fn keeps_order(&self) -> bool {
        true
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("published", &self.len())
            .finish_non_exhaustive()
    }
}
