//! The answers of one batch.

use std::collections::{HashMap, HashSet};

use crate::model::{Envelope, Lane, delivery::Delivery};

/// The answers of one batch, and the lanes that have stopped.
pub(crate) struct Round<'a> {
    pub(crate) batch: &'a [Envelope],
    pub(crate) answers: Vec<Option<Delivery>>,
    /// The place of the event that stopped a lane: what comes later in it is held.
    stopped: HashMap<Lane, usize>,
}

impl<'a> Round<'a> {
    pub(crate) fn new(batch: &'a [Envelope]) -> Self {
        Self {
            batch,
            answers: vec![None; batch.len()],
            stopped: HashMap::new(),
        }
    }

    pub(crate) fn answer(&mut self, place: usize, answer: Delivery) {
        if !answer.is_published() {
            let first = self
                .stopped
                .entry(self.batch[place].lane())
                .or_insert(place);
            *first = place.min(*first);
        }
        self.answers[place] = Some(answer);
    }

    /// Whether the event still waits for an answer and nothing before it stands in its way.
    pub(crate) fn is_open(&self, place: usize) -> bool {
        let stopped = || {
            self.stopped
                .get(&self.batch[place].lane())
                .is_some_and(|first| *first < place)
        };
        self.answers[place].is_none() && (self.stopped.is_empty() || !stopped())
    }

    pub(crate) fn open(&self) -> Vec<usize> {
        (0..self.batch.len())
            .filter(|place| self.is_open(*place))
            .collect()
    }

    /// What has no answer was held up by its lane.
    pub(crate) fn finish(self) -> Vec<Delivery> {
        self.answers
            .into_iter()
            .map(|answer| answer.unwrap_or(Delivery::Held))
            .collect()
    }

    /// What the idempotent producer can send together: each place, and whether carefully. `warm` has the lanes of which the
    /// present producer has stored an event, and in which topic.
    pub(crate) fn step(
        &self,
        suspects: &HashSet<String>,
        warm: &HashMap<Lane, &str>,
    ) -> Vec<(usize, bool)> {
        // The topic in which more of a lane may follow at once.
        let mut lanes: HashMap<Lane, Option<&str>> = HashMap::new();
        let mut step = Vec::new();
        for place in self.open() {
            let event = &self.batch[place];
            let (lane, topic) = (event.lane(), event.topic.as_str());
            let careful = suspects.contains(topic);
            // Some partitioners spread an empty key.
            let sticks = event.partition_key.as_deref() != Some("");
            let (goes, follows) = match lanes.get(&lane) {
                None => (true, !careful && sticks && warm.get(&lane) == Some(&topic)),
                Some(follow) => (*follow == Some(topic), *follow == Some(topic)),
            };
            lanes.insert(lane, follows.then_some(topic));
            if goes {
                step.push((place, careful));
            }
        }
        step
    }
}
