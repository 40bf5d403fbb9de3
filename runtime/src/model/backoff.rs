//! From the number of tries to the pause before the next one.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Doubles from 1 ms to 128 ms, and takes a random half of it off, so that those who met do not meet again.
pub(crate) fn pause(tries: u32) -> Duration {
    let full = 1000_u64 << tries.clamp(1, 8).saturating_sub(1);
    Duration::from_micros(full / 2 + random() % (full / 2))
}

/// Before a body runs again: ten times as long.
///
/// PostgreSQL refuses a serializable transaction also when it began before the commit it is in conflict with was to be seen, and
/// that commit takes as long as the disk and a synchronous standby do. Shorter pauses spent three retries within one such commit.
pub(crate) fn pause_after_conflict(tries: u32) -> Duration {
    pause(tries) * 10
}

/// Takes a random part of up to a half off.
pub(crate) fn jittered(full: Duration) -> Duration {
    let half = u64::try_from(full.as_micros() / 2).unwrap_or(u64::MAX);
    full - Duration::from_micros(random() % half.max(1))
}

/// One of so many places.
pub(crate) fn any_of(places: usize) -> usize {
    let place = random() % u64::try_from(places.max(1)).unwrap_or(u64::MAX);
    usize::try_from(place).unwrap_or(0)
}

/// The standard library seeds every hasher at random: enough for jitter.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_retries_of_a_body_outlast_a_slow_commit() {
        let spent: Duration = (1..=3).map(pause_after_conflict).sum();
        assert!(spent >= Duration::from_millis(35), "{spent:?}");
        assert!(spent < Duration::from_millis(70), "{spent:?}");
    }
}
