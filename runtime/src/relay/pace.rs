//! How often the outbox is read: at once while there is plenty, soon after a commit, ever less often when nothing happens.

use std::time::{Duration, Instant};

use crate::model::backoff::jittered;

/// How much a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// More is there.
    Plenty,
    Some,
    Nothing,
}

/// When to read next.
#[derive(Debug)]
pub(super) struct Pace {
    next: Instant,
    last: Instant,
    hurried: bool,
    linger: Duration,
    /// How long a read takes: a running mean, in which a single slow one counts for little, so that it delays nothing.
    read: Duration,
    idle: Duration,
    longest: Duration,
}

impl Pace {
    /// Where the machine is busy reads take longer. From a quarter of `linger` on the pause grows this many times as fast as they:
    /// fewer reads find the same events, and what they cost is left to the handlers.
    const BUSY: u32 = 8;
    /// How many times `linger` it grows to. More leaves more to the handlers (three per cent of their calls with 8), and makes
    /// events late on a machine that is merely busy.
    const MOST: u32 = 3;

    pub(super) fn new(linger: Duration, longest: Duration) -> Self {
        let now = Instant::now();
        Self {
            next: now,
            last: now,
            hurried: true,
            linger,
            read: Duration::ZERO,
            idle: linger,
            longest,
        }
    }

    /// Something happened: read soon, and not so soon that what comes in the next moment needs a read of its own.
    pub(super) fn hurry(&mut self) {
        self.hurried = true;
        self.next = self.next.min(self.last + self.pause());
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    pub(super) fn is_hurried(&self) -> bool {
        self.hurried
    }

    pub(super) fn began(&mut self) {
        self.hurried = false;
        self.last = Instant::now();
    }

    pub(super) fn found(&mut self, found: Found) {
        let now = Instant::now();
        self.took(now - self.last);
        match found {
            Found::Plenty => self.next = now,
            Found::Some => {
                self.idle = self.linger;
                self.next = self.last + self.pause();
            }
            Found::Nothing => {
                self.idle = (self.idle * 2).clamp(Duration::from_millis(1), self.longest);
                self.next = now + jittered(self.idle);
            }
        }
    }

    pub(super) fn not_after(&mut self, moment: Instant) {
        self.next = self.next.min(moment.max(self.last + self.pause()));
    }

    /// Learns from how long a read took. One slow read is a stalled disk, many are a busy machine.
    fn took(&mut self, took: Duration) {
        let counted = took.min(self.read * 4 + self.linger / 16);
        self.read = (self.read * 7 + counted) / 8;
    }

    /// Between a read and the next one.
    fn pause(&self) -> Duration {
        let busy = (self.read * Self::BUSY).saturating_sub(self.linger);
        let most = self.linger.saturating_mul(Self::MOST).min(self.longest);
        // Not `clamp`, which panics when the bounds cross.
        busy.min(most).max(self.linger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_millis(5);
    const POLL: Duration = Duration::from_millis(250);

    fn after(reads: impl IntoIterator<Item = u64>) -> Duration {
        let mut pace = Pace::new(LINGER, POLL);
        for micros in reads {
            pace.took(Duration::from_micros(micros));
        }
        pace.pause()
    }

    #[test]
    fn quick_reads_leave_the_pause_as_it_is_set() {
        assert_eq!(after([1_000; 100]), LINGER);
    }

    #[test]
    fn slow_reads_make_it_longer_up_to_three_times() {
        assert!(after([1_500; 100]) > LINGER);
        assert!(after([2_000; 100]) > LINGER * 2);
        assert_eq!(after([1_000_000; 100]), LINGER * 3);
    }

    #[test]
    fn a_single_slow_read_delays_nothing() {
        let stalled = [700; 50].into_iter().chain([500_000]);
        assert_eq!(after(stalled), LINGER);
    }

    #[test]
    fn the_pause_follows_when_the_machine_is_idle_again() {
        assert_eq!(after([4_000; 50].into_iter().chain([500; 50])), LINGER);
    }

    #[test]
    fn it_is_never_longer_than_the_poll_and_never_shorter_than_the_linger() {
        let mut pace = Pace::new(LINGER, LINGER * 2);
        (0..100).for_each(|_| pace.took(POLL));
        assert_eq!(pace.pause(), LINGER * 2);
        let mut pace = Pace::new(LINGER * 2, LINGER);
        pace.took(POLL);
        assert_eq!(pace.pause(), LINGER * 2);
    }
}
