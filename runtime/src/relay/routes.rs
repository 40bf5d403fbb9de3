//! All routes of a relay: which one a topic takes, and which topics are not to be read right now.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::route::Routed;
use crate::model::Pattern;

#[derive(Debug)]
pub(super) struct Routes {
    /// The most exact first.
    all: Vec<Routed>,
    /// The topics of `all`, in its order.
    patterns: Vec<Pattern>,
    paused: Mutex<Vec<Pattern>>,
    /// A topic without a route was met: from then on only what has one is read.
    met_unrouted: AtomicBool,
}

impl Routes {
    pub(super) fn new(mut all: Vec<Routed>) -> Self {
        all.sort_by_key(|routed| std::cmp::Reverse(routed.pattern.rank()));
        Self {
            patterns: all.iter().map(|routed| routed.pattern.clone()).collect(),
            all,
            paused: Mutex::default(),
            met_unrouted: AtomicBool::new(false),
        }
    }

    pub(super) fn get(&self, route: usize) -> &Routed {
        &self.all[route]
    }

    /// The topics of all routes, the most exact first.
    pub(super) fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// The route of a topic that may be published now.
    pub(super) fn of(&self, topic: &str) -> Option<usize> {
        let route = self.find(topic)?;
        (!self.is_paused(topic)).then_some(route)
    }

    fn find(&self, topic: &str) -> Option<usize> {
        let route = self
            .patterns
            .iter()
            .position(|pattern| pattern.matches(topic));
        if route.is_none() && !self.met_unrouted.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target: "effectively::relay", topic,
                "no route for this topic: its events stay in the outbox for a relay that has one, as do those of any other topic without a route"
            );
        }
        route
    }

    /// Which topics may be read now: the first entry that takes a topic says so, and what none takes may not. Empty: all.
    pub(super) fn readable(&self) -> Vec<(Pattern, bool)> {
        let now = Instant::now();
        let mut readable: Vec<_> = locked(&self.paused)
            .iter()
            .map(|paused| (paused.clone(), false))
            .collect();
        let routes = self.all.iter().map(|routed| {
            let open = routed.closed_until(now).is_none();
            (routed.pattern.clone(), open)
        });
        readable.extend(routes);
        let only_routed = self.met_unrouted.load(Ordering::Relaxed);
        if !only_routed && readable.iter().all(|(_, open)| *open) {
            return Vec::new();
        }
        readable.push((Pattern::all(), !only_routed));
        readable
    }

    /// When the first sink that is down is to be asked again.
    pub(super) fn reopens_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let closed = self
            .all
            .iter()
            .filter_map(|routed| routed.closed_until(now));
        closed.min()
    }

    pub(super) fn pause(&self, pattern: Pattern) {
        locked(&self.paused).push(pattern);
    }

    pub(super) fn resume(&self, pattern: &Pattern) {
        locked(&self.paused).retain(|paused| paused != pattern);
    }

    fn is_paused(&self, topic: &str) -> bool {
        locked(&self.paused)
            .iter()
            .any(|pattern| pattern.matches(topic))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
