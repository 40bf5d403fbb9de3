//! Connections that serve the ledger's next call without passing through the pool.
//!
//! sqlx pings a connection when it goes back to its pool, and unless told otherwise once more before it is lent: one or two round
//! trips per call. Three rules bound how long anybody waits for a connection that is kept:
//!
//! * a call of this ledger that waits for the pool goes first: the next connection that is free goes there;
//! * a connection that no call takes within [`IDLE`] goes back at the next look, so within twice as long;
//! * one that the pool lent more than [`AWAY`] ago goes back when its call ends: others wait in the pool's own queue.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::lent::Lent;
use crate::store::Dialect;

const IDLE: Duration = Duration::from_millis(5);
const AWAY: Duration = Duration::from_millis(200);

/// The connections that wait for a call.
#[derive(Debug)]
pub(super) struct Kept<DB: Dialect>(Mutex<State<DB>>);

#[derive(Debug)]
struct State<DB: Dialect> {
    /// The last one in is the first one out: the first has been idle longest.
    idle: Vec<(Instant, Lent<DB>)>,
    queue: Queue,
    /// Whether a task looks for those that nobody takes.
    swept: bool,
}

/// The calls that wait for the pool.
#[derive(Debug, Default)]
struct Queue {
    waiting: usize,
    /// Connections on their way to the pool for them. Without this count, who ends during their pings would give back, ping and
    /// wait as well.
    promised: usize,
}

impl Queue {
    fn is_owed(&self) -> bool {
        self.waiting > self.promised
    }

    /// One more is on its way: for who waits, or for the call that will next miss it.
    fn promise(&mut self) {
        self.promised = (self.promised + 1).min(self.waiting + 1);
    }

    fn enter(&mut self) {
        self.waiting += 1;
    }

    fn leave(&mut self) {
        self.waiting -= 1;
        self.promised = match self.waiting {
            0 => 0,
            _ => self.promised.saturating_sub(1),
        };
    }
}

impl<DB: Dialect> Kept<DB> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            idle: Vec::new(),
            queue: Queue::default(),
            swept: false,
        })))
    }

    /// A connection, or a place among those who wait for the pool.
    pub(super) fn take(self: &Arc<Self>) -> Result<Lent<DB>, Waiting<DB>> {
        let mut state = self.state();
        if let Some((_, mut lent)) = state.idle.pop() {
            lent.lend_again();
            return Ok(lent);
        }
        state.queue.enter();
        Err(Waiting(Arc::clone(self)))
    }

    /// Keeps a connection whose transaction has ended, or gives it back to the pool.
    pub(super) fn keep(self: &Arc<Self>, mut lent: Lent<DB>) {
        let mut state = self.state();
        if state.queue.is_owed() || lent.lent_at().elapsed() > AWAY {
            state.queue.promise();
            drop(state);
            return lent.give_back();
        }
        let runtime = lent.runtime().clone();
        lent.mark_clean();
        state.idle.push((Instant::now(), lent));
        if !mem::replace(&mut state.swept, true) {
            // A runtime that has ended drops the task at once, and that takes the lock.
            drop(state);
            let kept = Arc::clone(self);
            runtime.spawn(Sweeper { kept, done: false }.run());
        }
    }

    /// Gives all back to the pool: one was broken, so the others may be.
    pub(super) fn clear(&self) {
        let idle = mem::take(&mut self.state().idle);
        drop(idle);
    }

    fn state(&self) -> MutexGuard<'_, State<DB>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that waits for the pool, until it is dropped.
pub(super) struct Waiting<DB: Dialect>(Arc<Kept<DB>>);

impl<DB: Dialect> Drop for Waiting<DB> {
    fn drop(&mut self) {
        self.0.state().queue.leave();
    }
}

/// Gives back what nobody takes.
struct Sweeper<DB: Dialect> {
    kept: Arc<Kept<DB>>,
    done: bool,
}

impl<DB: Dialect> Sweeper<DB> {
    async fn run(mut self) {
        while !self.done {
            sleep(IDLE).await;
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        let mut state = self.kept.state();
        let stale = state.idle.iter();
        let stale = stale.take_while(|(since, _)| since.elapsed() >= IDLE);
        let stale = stale.count();
        let stale: Vec<_> = state.idle.drain(..stale).collect();
        // Under the same lock as the look: whoever keeps the next one starts another task.
        state.swept = !state.idle.is_empty();
        self.done = !state.swept;
        drop(state);
        drop(stale);
    }
}

/// The runtime has ended: nobody would look any more.
impl<DB: Dialect> Drop for Sweeper<DB> {
    fn drop(&mut self) {
        if !self.done {
            self.kept.state().swept = false;
            self.kept.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_owed_to_each_call_that_waits_and_promised_once() {
        let mut queue = Queue::default();
        assert!(!queue.is_owed());
        queue.enter();
        queue.enter();
        for _ in 0..2 {
            assert!(queue.is_owed());
            queue.promise();
        }
        assert!(!queue.is_owed());
        queue.leave();
        queue.enter();
        assert!(queue.is_owed());
    }

    #[test]
    fn what_went_back_while_nobody_waited_is_not_held_against_those_who_wait_later() {
        let mut queue = Queue::default();
        (0..1000).for_each(|_| queue.promise());
        queue.enter();
        queue.enter();
        assert!(queue.is_owed());
        queue.leave();
        queue.leave();
        queue.enter();
        assert!(queue.is_owed());
    }
}
