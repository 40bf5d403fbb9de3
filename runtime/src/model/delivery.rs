//! What became of an event that was published, or was not.

use std::{borrow::Cow, time::Duration};

/// What became of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The other side has confirmed it and can no longer lose it.
    Published,
    /// The other side refused this event, and others may pass: it is tried again after a while, in the end it becomes a dead
    /// letter.
    Rejected(Rejected),
    /// The other side cannot be reached, or did not answer: nothing is known. No attempt is counted against the event, unless it
    /// [timed out](Delivery::timed_out) alone.
    Unavailable(Unavailable),
    /// It was not tried, because an earlier event of its partition key was not published. It stays where it is.
    Held,
}

/// Why the other side refused an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the sink refused the event: {reason}")]
pub struct Rejected {
    reason: Reason,
    fatal: bool,
}

/// Why the other side could not be asked. Two are equal that have the same reason and ask for the same pause, whatever they were made by.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the sink is unavailable: {reason}")]
pub struct Unavailable {
    reason: Reason,
    at_least: Duration,
    timed_out: bool,
}

impl PartialEq for Unavailable {
    fn eq(&self, other: &Self) -> bool {
        (&self.reason, self.at_least) == (&other.reason, other.at_least)
    }
}

impl Eq for Unavailable {}

type Reason = Cow<'static, str>;

impl Delivery {
    /// Refused, and may be accepted later.
    ///
    /// The reason is stored with the event and shown to operators: say what is wrong, and keep payloads and secrets out.
    pub fn rejected(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Rejected(Rejected {
            reason: short(reason.into()),
            fatal: false,
        })
    }

    /// Refused for good, for example because it is too large: it becomes a dead letter at once. The reason as for
    /// [`rejected`](Self::rejected).
    pub fn refused_for_good(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Rejected(Rejected {
            reason: short(reason.into()),
            fatal: true,
        })
    }

    /// The other side cannot be reached or did not answer. The reason as for [`rejected`](Self::rejected).
    pub fn unavailable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Unavailable(Unavailable::new(reason))
    }

    /// There was no answer for this event in time. The relay then publishes it by itself: if it is not answered alone either, while
    /// the sink answers for others, that counts as an attempt. For a sink that asks for each event apart, and can tell over which
    /// one it waited; else [`unavailable`](Self::unavailable). The reason as for [`rejected`](Self::rejected).
    pub fn timed_out(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Unavailable(Unavailable {
            timed_out: true,
            ..Unavailable::new(reason)
        })
    }

    /// Whether the other side has confirmed it.
    pub fn is_published(&self) -> bool {
        matches!(self, Self::Published)
    }
}

impl Rejected {
    /// What is wrong with the event.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether it will never be accepted.
    pub fn is_fatal(&self) -> bool {
        self.fatal
    }
}

impl Unavailable {
    /// The reason as for [`Delivery::rejected`].
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: short(reason.into()),
            at_least: Duration::ZERO,
            timed_out: false,
        }
    }

    /// The other side has said how long it wants to be left alone: the relay's own pause becomes no shorter than that, up to
    /// five minutes.
    #[must_use]
    pub fn for_at_least(mut self, pause: Duration) -> Self {
        self.at_least = pause;
        self
    }

    /// How long the other side wants to be left alone; zero when it has not said.
    pub fn at_least(&self) -> Duration {
        self.at_least
    }

    /// Whether there was no answer in time for this very event.
    pub fn is_timeout(&self) -> bool {
        self.timed_out
    }

    /// What is wrong with the other side.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// A reason is read by people, and a server may answer with pages of text. PostgreSQL stores no NUL in text, and a terminal is not
/// to obey what a stranger has written.
fn short(reason: Reason) -> Reason {
    const LONGEST: usize = 500;
    let is_sign = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
    let is_long = reason.char_indices().nth(LONGEST).is_some();
    if !is_long && !reason.contains(is_sign) {
        return reason;
    }
    let printable = |character: char| {
        if is_sign(character) {
            char::REPLACEMENT_CHARACTER
        } else {
            character
        }
    };
    Cow::Owned(reason.chars().take(LONGEST).map(printable).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_short_and_has_nothing_that_a_database_or_a_terminal_reads_otherwise() {
        let reason = |given: &'static str| match Delivery::rejected(given) {
            Delivery::Rejected(rejected) => rejected.reason().to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(reason("no room"), "no room");
        assert_eq!(reason("a\0b\u{1b}[2J"), "a\u{fffd}b\u{fffd}[2J");
        let long: &'static str = "ä".repeat(600).leak();
        assert_eq!(reason(long), "ä".repeat(500));
    }
}
