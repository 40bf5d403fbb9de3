//! What lies in the tables.

use std::time::Duration;

use effectively::{Backlog, Leftovers, ScopeUse};

use super::{Finding, Level};
use crate::output::{count, span};

/// An event that is due is published within a second; after this time nobody does.
const LATE: Duration = Duration::from_secs(5 * 60);

/// What to do when events are due and no relay is alive.
pub(crate) const START_A_RELAY: &str = "start `effectively relay`, or the relay in your service";

/// More expired claims or events than this cost lookups and disk.
const MANY: u64 = 100_000;

pub(super) fn judge(backlog: &Backlog, leftovers: &Leftovers) -> Vec<Finding> {
    vec![
        events(backlog),
        leases(backlog, leftovers),
        dead_letters(backlog),
        interrupted(backlog),
        claims(leftovers),
        kept(leftovers),
    ]
}

fn events(backlog: &Backlog) -> Finding {
    const CHECK: &str = "events";
    let due = count(backlog.due, "event");
    let late = backlog.oldest > LATE;
    if backlog.due == 0 || (backlog.relays > 0 && !late) {
        return Finding::ok(CHECK, format!("{due} due"));
    }
    let what = format!("{due} due, the oldest for {}", span(backlog.oldest));
    if backlog.relays == 0 {
        // Not an error at once: a relay may just be about to start.
        let level = if late { Level::Error } else { Level::Warning };
        let what = format!("{what}, and no relay is alive");
        Finding::new(level, CHECK, what, START_A_RELAY)
    } else {
        Finding::warning(
            CHECK,
            format!("{what}, with {} alive", count(backlog.relays, "relay")),
            "read the relays' logs: a sink is down, a topic is paused or has no route, or there is more than they can do",
        )
    }
}

fn leases(backlog: &Backlog, leftovers: &Leftovers) -> Finding {
    const CHECK: &str = "leases";
    match leftovers.orphaned_leases {
        0 => Finding::ok(CHECK, format!("{} alive", count(backlog.relays, "relay"))),
        orphaned => Finding::warning(
            CHECK,
            format!(
                "{} of relays that are not alive any more",
                count(orphaned, "lease")
            ),
            "a relay died or was killed: look why; another one takes them over as soon as they have ended",
        ),
    }
}

fn dead_letters(backlog: &Backlog) -> Finding {
    const CHECK: &str = "dead_letters";
    match backlog.dead_letters {
        0 => Finding::ok(CHECK, "none"),
        letters => Finding::warning(
            CHECK,
            count(letters, "dead letter"),
            "`effectively dead-letters list` says why; then retry or discard them",
        ),
    }
}

fn interrupted(backlog: &Backlog) -> Finding {
    const CHECK: &str = "interrupted_keys";
    match backlog.interrupted_keys {
        0 => Finding::ok(CHECK, "none"),
        keys => Finding::warning(
            CHECK,
            format!(
                "{}: a handler's body ended its own transaction",
                count(keys, "interrupted key")
            ),
            "`effectively keys interrupted` lists them: look whether the effects happened, repair, then `effectively keys release`",
        ),
    }
}

fn claims(leftovers: &Leftovers) -> Finding {
    let what = count(leftovers.expired_claims, "outcome");
    let many = leftovers.expired_claims > MANY;
    let over = many.then_some((" whose retention is over", "Ledger::purge"));
    to_purge("expired_claims", &what, over)
}

fn kept(leftovers: &Leftovers) -> Finding {
    let what = count(leftovers.expired_events, "published event");
    let many = leftovers.expired_events > MANY;
    let over = many.then_some((" kept long enough", "Outbox::purge_published"));
    to_purge("expired_events", &what, over)
}

/// One finding for each scope that several functions use.
pub(super) fn shared(uses: &[ScopeUse]) -> Vec<Finding> {
    const CHECK: &str = "scopes";
    if uses.is_empty() {
        return vec![Finding::ok(CHECK, "each is used by one function")];
    }
    let of_scope = uses.chunk_by(|one, other| one.scope == other.scope);
    let finding = |uses: &[ScopeUse]| {
        let places: Vec<&str> = uses.iter().map(|used| used.place.as_str()).collect();
        let scope = uses.first().map_or("", |used| used.scope.as_str());
        Finding::warning(
            CHECK,
            format!("`{scope}` is used by {}", places.join(" and ")),
            "each gets the other's recorded answers: give one of them its own `scope`; if a function was renamed, this ends seven days after its last use under the old name",
        )
    };
    of_scope.map(finding).collect()
}

/// `too_many`: what is wrong with them, and the call that deletes them.
fn to_purge(check: &str, what: &str, too_many: Option<(&str, &str)>) -> Finding {
    match too_many {
        None => Finding::ok(check, format!("{what} to purge")),
        Some((wrong, call)) => Finding::warning(
            check,
            format!("{what}{wrong}"),
            &format!("run `effectively purge` every few minutes, or `{call}` in your service"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_no_relay_will_publish_are_never_fine() {
        let minute = Duration::from_secs(60);
        for (due, oldest, relays, level) in [
            (0, Duration::ZERO, 0, Level::Ok),
            (1, Duration::ZERO, 0, Level::Warning),
            (1, minute * 6, 0, Level::Error),
            (1, minute, 1, Level::Ok),
            (1, minute * 6, 1, Level::Warning),
        ] {
            let mut backlog = Backlog::default();
            (backlog.due, backlog.oldest, backlog.relays) = (due, oldest, relays);
            assert_eq!(events(&backlog).level, level, "{backlog:?}");
        }
    }

    #[test]
    fn rows_that_nobody_purges_are_a_warning_above_a_hundred_thousand() {
        let mut leftovers = Leftovers::default();
        for (expired, level) in [(MANY, Level::Ok), (MANY + 1, Level::Warning)] {
            leftovers.expired_claims = expired;
            leftovers.expired_events = expired;
            let findings = judge(&Backlog::default(), &leftovers);
            let expired = findings
                .iter()
                .filter(|finding| finding.check.starts_with("expired_"));
            let levels: Vec<_> = expired.map(|finding| finding.level).collect();
            assert_eq!(levels, [level, level]);
        }
    }
}
