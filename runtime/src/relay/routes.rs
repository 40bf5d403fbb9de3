//! All routes of a relay: which one a topic takes, and which topics are not to be read right now.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::route::{Pattern, Routed};
use crate::model::Lane;

#[derive(Debug)]
pub(super) struct Routes {
    /// The most exact first.
    all: Vec<Routed>,
    /// The topics met so far; `None`: no route.
    seen: Mutex<HashMap<String, Option<usize>>>,
    paused: Mutex<Vec<Pattern>>,
}

impl Routes {
    pub(super) fn new(mut all: Vec<Routed>) -> Self {
        all.sort_by_key(|routed| std::cmp::Reverse(routed.pattern.rank()));
        Self {
            all,
            seen: Mutex::default(),
            paused: Mutex::default(),
        }
    }

    pub(super) fn get(&self, route: usize) -> &Routed {
        &self.all[route]
    }

    /// The route of a topic that may be published now.
    pub(super) fn of(&self, topic: &str) -> Option<usize> {
        let route = self.find(topic)?;
        (!self.is_paused(topic)).then_some(route)
    }

    fn find(&self, topic: &str) -> Option<usize> {
        let mut seen = locked(&self.seen);
        if let Some(route) = seen.get(topic) {
            return *route;
        }
        let route = self
            .all
            .iter()
            .position(|routed| routed.pattern.matches(topic));
        if route.is_none() {
            tracing::error!(target: "effectively::relay", topic, "no route for this topic: its events stay in the outbox");
        }
        seen.insert(topic.to_owned(), route);
        route
    }

    /// Whether later events of this lane wait while one of this topic is tried again.
    pub(super) fn parks(&self, topic: &str, lane: &Lane) -> bool {
        self.find(topic)
            .is_some_and(|route| self.all[route].parks(lane))
    }

    /// The topics that cannot be published now: without a route, paused, or with a sink that is down.
    pub(super) fn excluded(&self) -> Vec<String> {
        let now = Instant::now();
        let seen = locked(&self.seen);
        let closed = |route: &Option<usize>| {
            route.is_none_or(|route| self.all[route].closed_until(now).is_some())
        };
        let excluded = seen
            .iter()
            .filter(|(topic, route)| closed(route) || self.is_paused(topic));
        excluded.map(|(topic, _)| topic.clone()).collect()
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
