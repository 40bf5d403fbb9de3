//! Bounds of the durations that users give. They are checked where a duration is given, so that no clock and no database that
//! it is added to overflows later.

use std::time::Duration;

use crate::error::{Error, ErrorKind};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest retention of an outcome, and the longest delay of an event.
pub(crate) const CENTURY: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);
/// The longest time that a duplicate waits.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The longest time that the answer to a COMMIT is waited for, and looked for afterwards.
pub(crate) const LONGEST_UNKNOWN: Duration = Duration::from_secs(60 * 60);
/// The longest lease of a relay, and the longest pause between two looks at the outbox.
pub(crate) const LONGEST_LEASE: Duration = Duration::from_secs(60 * 60);
/// The longest time that a sink may take.
pub(crate) const LONGEST_TIMEOUT: Duration = DAY;
/// The longest pause before a rejected event is tried again.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// # Errors
/// [`ErrorKind::Settings`] when an outcome cannot be kept for so long, or for so short a time.
pub(crate) fn retention(retention: Duration) -> Result<(), Error> {
    within(
        (Duration::from_millis(1)..=CENTURY).contains(&retention),
        "a retention is between 1 millisecond and 100 years",
    )
}

/// # Errors
/// [`ErrorKind::Settings`] when no duplicate waits so long.
pub(crate) fn wait(wait: Duration) -> Result<(), Error> {
    within(wait <= LONGEST_WAIT, "a duplicate waits at most one minute")
}

/// # Errors
/// [`ErrorKind::Settings`] when no event is delayed so long.
pub(crate) fn delay(delay: Duration) -> Result<(), Error> {
    within(delay <= CENTURY, "an event is delayed by at most 100 years")
}

/// # Errors
/// [`ErrorKind::Settings`] with this message, unless it holds.
pub(crate) fn within(holds: bool, message: &'static str) -> Result<(), Error> {
    if holds {
        Ok(())
    } else {
        Err(ErrorKind::Settings(message).into())
    }
}
