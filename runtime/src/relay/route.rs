//! Routes: which sink an event goes to, and what happens when the sink refuses it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::breaker::Breaker;
use crate::{
    model::{Lane, Pattern, backoff::jittered},
    sink::{DynSink, Sink},
};

/// Whether later events of a partition key wait while an earlier one, which the sink has rejected, is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// They wait, so the order of the key is kept. A dead letter holds up nothing any more.
    #[default]
    Block,
    /// They pass it.
    Skip,
}

/// A sink, and what happens when it refuses an event.
///
/// ```
/// use std::time::Duration;
/// use effectively::{Order, Route, sink::Memory};
///
/// let route = Route::to(Memory::new())
///     .order(Order::Skip)
///     .attempts(5)
///     .backoff(Duration::from_secs(1), Duration::from_secs(60));
/// ```
#[must_use = "a route does nothing before it is given to a relay"]
pub struct Route {
    pub(super) sink: Arc<dyn DynSink>,
    pub(super) order: Order,
    pub(super) attempts: u16,
    first: Duration,
    pub(super) longest: Duration,
}

impl Route {
    /// Publishes to this sink. A rejected event is tried 10 times, after 1 second, 2, 4 and so on up to 10 minutes, with a
    /// random part; later events of its partition key wait.
    pub fn to(sink: impl Sink) -> Self {
        Self {
            sink: Arc::new(sink),
            order: Order::default(),
            attempts: 10,
            first: Duration::from_secs(1),
            longest: Duration::from_secs(600),
        }
    }

    /// Whether later events of a partition key wait for one that is tried again. Default: [`Order::Block`].
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// How often an event is tried before it becomes a dead letter; at least 1. Above 32,767, as far as is counted: for ever. Default: 10.
    pub fn attempts(mut self, attempts: u16) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The pause after the first rejection, and the longest one. Each pause is twice the one before, less a random part of up
    /// to a half. Default: 1 second and 10 minutes; at most 365 days.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.first = first;
        self.longest = longest.max(first);
        self
    }

    /// The pause after so many rejections.
    pub(super) fn pause(&self, attempts: u16) -> Duration {
        let doublings = u32::from(attempts.saturating_sub(1)).min(31);
        let full = self.first.saturating_mul(1 << doublings);
        jittered(full.min(self.longest))
    }
}

impl<S: Sink> From<S> for Route {
    fn from(sink: S) -> Self {
        Self::to(sink)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("order", &self.order)
            .field("attempts", &self.attempts)
            .field("backoff", &(self.first, self.longest))
            .finish_non_exhaustive()
    }
}

/// A route in a running relay.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) pattern: Pattern,
    pub(super) route: Route,
    /// Asked once: a panic belongs to who builds the relay.
    pub(super) keeps_order: bool,
    pub(super) breaker: Breaker,
}

impl Routed {
    pub(super) fn new(pattern: Pattern, route: Route) -> Self {
        Self {
            pattern,
            keeps_order: route.sink.keeps_order(),
            route,
            breaker: Breaker::default(),
        }
    }

    /// Whether events of this lane wait while one of them is tried again.
    pub(super) fn parks(&self, lane: &Lane) -> bool {
        self.route.order == Order::Block && matches!(lane, Lane::Key(_))
    }

    /// When its sink is to be asked again; `None`: now.
    pub(super) fn closed_until(&self, now: Instant) -> Option<Instant> {
        self.breaker.open_until().filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Memory;

    #[test]
    fn pauses_double_up_to_the_longest_and_lose_at_most_half() {
        let route =
            Route::to(Memory::new()).backoff(Duration::from_secs(1), Duration::from_secs(5));
        for (attempts, full) in [(1, 1), (2, 2), (3, 4), (4, 5), (400, 5)] {
            let (full, pause) = (Duration::from_secs(full), route.pause(attempts));
            assert!(pause > full / 2 && pause <= full, "{attempts}: {pause:?}");
        }
    }
}
