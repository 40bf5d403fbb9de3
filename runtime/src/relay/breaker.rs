//! The circuit breaker of a route: while its sink is down, its events are not read and no attempt is counted against them.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::model::backoff::jittered;

/// The first pause, and the longest. Each is twice the one before.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
/// A sink may ask to be left alone for longer, and for no longer than this: what it says is a stranger's word.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
    /// One event is on its way to find out whether the sink is back.
    probing: bool,
    /// Since the sink last answered, it has not answered for this event, which it was handed alone.
    unanswered: Option<i64>,
    /// Nor for another one: then it is the sink.
    mute: bool,
}

/// How much may be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Everything,
    /// One event, to see whether the sink is back.
    Probe,
    Nothing,
}

impl Breaker {
    pub(super) fn admit(&self) -> Admission {
        let mut state = self.lock();
        match state.open_until {
            None => Admission::Everything,
            Some(until) if until > Instant::now() || state.probing => Admission::Nothing,
            Some(_) => {
                state.probing = true;
                Admission::Probe
            }
        }
    }

    /// The sink was handed this event alone and did not answer in time. Whether that is the event's doing: as long as the sink does not
    /// leave another one unanswered, too.
    pub(super) fn blames(&self, outbox_id: i64) -> bool {
        let mut state = self.lock();
        let first = *state.unanswered.get_or_insert(outbox_id);
        state.mute |= first != outbox_id;
        !state.mute
    }

    /// The sink answered for an event: what it does not answer next is not its own doing.
    pub(super) fn heard(&self) {
        let mut state = self.lock();
        state.unanswered = None;
        state.mute = false;
    }

    /// The sink answered. Whether it was down before.
    pub(super) fn close(&self) -> bool {
        let mut state = self.lock();
        std::mem::take(&mut *state).open_until.is_some()
    }

    /// The sink did not answer. How long it is left alone, `at_least` so long; `None` when that is known already.
    pub(super) fn open(&self, at_least: Duration) -> Option<Duration> {
        let mut state = self.lock();
        let known = state.open_until.is_some() && !state.probing;
        if known {
            return None;
        }
        let full = FIRST.saturating_mul(1 << state.failures.min(20));
        let pause = jittered(full.min(LONGEST)).max(at_least.min(LONGEST_ASKED));
        state.failures = state.failures.saturating_add(1);
        state.probing = false;
        state.open_until = Some(Instant::now() + pause);
        Some(pause)
    }

    /// The probe was not made after all.
    pub(super) fn abandon_probe(&self) {
        self.lock().probing = false;
    }

    pub(super) fn open_until(&self) -> Option<Instant> {
        self.lock().open_until
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_breaker_lets_one_probe_through_when_its_time_is_over() {
        let breaker = Breaker::default();
        assert_eq!(breaker.admit(), Admission::Everything);
        assert!(breaker.open(Duration::ZERO).is_some());
        assert!(
            breaker.open(Duration::ZERO).is_none(),
            "one outage counts once"
        );
        assert_eq!(breaker.admit(), Admission::Nothing);
        breaker.lock().open_until = Some(Instant::now());
        assert_eq!(breaker.admit(), Admission::Probe);
        assert_eq!(breaker.admit(), Admission::Nothing);
        let second = breaker.open(Duration::ZERO).unwrap();
        assert!(second > FIRST, "{second:?}");
        assert!(breaker.close());
        assert_eq!(breaker.admit(), Admission::Everything);
    }

    #[test]
    fn an_event_is_blamed_until_another_is_not_answered_either() {
        let breaker = Breaker::default();
        assert!(breaker.blames(1) && breaker.blames(1));
        assert!(!breaker.blames(2) && !breaker.blames(1), "it is the sink");
        breaker.heard();
        assert!(breaker.blames(2) && !breaker.blames(1));
        breaker.close();
        assert!(breaker.blames(1));
    }

    #[test]
    fn a_sink_that_asks_for_a_longer_pause_gets_it_within_a_bound() {
        for (asked, given) in [(7, 7), (1_000_000, 300)] {
            let pause = Breaker::default().open(Duration::from_secs(asked));
            assert_eq!(pause, Some(Duration::from_secs(given)));
        }
    }
}
