//! Named points in the algorithm at which a test can fail, panic, stall or kill, and bugs that a test can plant to see its
//! checker find them. Without the feature `fault-points` they are nothing.

#[cfg(not(feature = "fault-points"))]
use crate::model::KeyHash;

#[cfg(all(feature = "fault-points", any(feature = "postgres", feature = "mysql")))]
pub(crate) use self::planted::in_time;
#[cfg(feature = "fault-points")]
pub(crate) use self::{
    armed::point,
    planted::{in_hash, is_planted},
};
#[cfg(feature = "fault-points")]
pub use self::{
    armed::{AFTER_KEEP, AFTER_PUBLISH, Action, POINTS, RELAY_POINTS, arm, fired},
    planted::plant,
};

/// A bug that systems of this kind have had. A test plants it to see that its checker finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "fault-points"),
    allow(dead_code, reason = "nothing plants one")
)]
pub enum Bug {
    /// A call answers without knowing whether COMMIT went through.
    AckBeforeCommit,
    /// Nobody looks whether the transaction is still the one that claimed the key.
    NoFence,
    /// A key excludes the other calls of its own process only.
    ClaimOfOneProcess,
    /// A relay removes an event whether its sink took it or not.
    SettlesUnpublished,
    /// A relay takes a lease that came back to it for the one that it had.
    RenewalIgnoresEpoch,
    /// The two statements that move a row to another table are two transactions.
    MovesInTwoTransactions,
    /// The mark of an interrupted key is written over the answer of another call.
    InterruptionOverwrites,
    /// Expiry is decided by the clock of the process.
    ProcessClock,
}

#[cfg(not(feature = "fault-points"))]
pub(crate) async fn point(_: &'static str) -> sqlx::Result<()> {
    Ok(())
}

#[cfg(not(feature = "fault-points"))]
pub(crate) const fn is_planted(_: Bug) -> bool {
    false
}

#[cfg(not(feature = "fault-points"))]
pub(crate) const fn in_hash(hash: KeyHash) -> KeyHash {
    hash
}

#[cfg(all(
    not(feature = "fault-points"),
    any(feature = "postgres", feature = "mysql")
))]
pub(crate) const fn in_time(statement: String, _: &str, _: &str) -> String {
    statement
}

#[cfg(feature = "fault-points")]
mod armed {
    use std::{
        io,
        sync::{Mutex, MutexGuard, PoisonError},
    };

    /// Where a relay stands between publishing a batch and settling it.
    pub const AFTER_PUBLISH: &str = "after_publish";

    /// Where a relay has copied published events that it keeps, and has not removed them yet. PostgreSQL does both at once.
    pub const AFTER_KEEP: &str = "after_keep";

    /// What a relay asks of the database. `before_` it the question is not sent, `after_` it the answer does not arrive.
    pub const RELAY_POINTS: [&str; 13] = [
        "after_heartbeat",
        "after_renew",
        "after_acquire",
        "before_give_up",
        "after_give_up",
        "after_promotion",
        "after_parked",
        "after_due",
        "after_settle",
        "after_postpone",
        "after_bury",
        "after_suspect",
        "after_acquit",
    ];

    /// Every point of a call, in the order in which it passes them.
    pub const POINTS: [&str; 6] = [
        "before_claim",
        "after_claim",
        "in_body",
        "before_fence",
        "before_commit",
        "after_commit",
    ];

    /// What happens at an armed point.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Action {
        /// The connection breaks.
        Error,
        /// The task panics.
        Panic,
        /// The future never goes on: the test drops it, as a client that hangs up does.
        Stall,
        /// The process ends at once, without any destructor.
        Kill,
    }

    static ARMED: Mutex<Option<(&'static str, Action)>> = Mutex::new(None);
    static FIRED: Mutex<u64> = Mutex::new(0);

    /// Arms one point of this process for its next passing; `None` disarms.
    pub fn arm(point: Option<(&'static str, Action)>) {
        *locked(&ARMED) = point;
    }

    /// How often a point fired, so that a test can prove that its fault happened.
    pub fn fired() -> u64 {
        *locked(&FIRED)
    }

    pub(crate) async fn point(name: &'static str) -> sqlx::Result<()> {
        let Some(action) = take(name) else {
            return Ok(());
        };
        match action {
            Action::Error => Err(sqlx::Error::Io(io::Error::other("fault point"))),
            Action::Panic => panic!("fault point {name}"),
            Action::Stall => std::future::pending().await,
            Action::Kill => std::process::abort(),
        }
    }

    fn take(name: &str) -> Option<Action> {
        let mut armed = locked(&ARMED);
        let (_, action) = armed.take_if(|(point, _)| *point == name)?;
        *locked(&FIRED) += 1;
        Some(action)
    }

    fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(feature = "fault-points")]
mod planted {
    use std::{process, sync::OnceLock};

    use super::Bug;
    use crate::model::KeyHash;

    static PLANTED: OnceLock<Bug> = OnceLock::new();

    /// Plants a bug in this process, for as long as it lives.
    ///
    /// # Panics
    /// If it has one already.
    pub fn plant(bug: Bug) {
        assert!(PLANTED.set(bug).is_ok(), "one bug at a time");
    }

    /// Whether the algorithm is to have it.
    pub(crate) fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(&bug)
    }

    /// A statement that asks the database for its time by `now`: with one of the bugs, the process says what time it is, in the
    /// words of `since_1970`, in which `{}` is a number of seconds.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn in_time(statement: String, now: &str, since_1970: &str) -> String {
        if !is_planted(Bug::ProcessClock) {
            return statement;
        }
        let elapsed = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default();
        let seconds = elapsed.as_secs().to_string();
        statement.replace(now, &since_1970.replace("{}", &seconds))
    }

    /// What a key is claimed under: with one of the bugs, not its hash.
    pub(crate) fn in_hash(mut hash: KeyHash) -> KeyHash {
        if is_planted(Bug::ClaimOfOneProcess) {
            for (byte, of_process) in hash.0.iter_mut().zip(process::id().to_le_bytes()) {
                *byte ^= of_process;
            }
        }
        hash
    }
}
