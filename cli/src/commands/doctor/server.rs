//! What the server is set to.

use effectively::ServerState;

use super::{
    Finding, Level,
    Level::{Error, Warning},
};
use crate::{config::Config, failure::Failure, output::span};

/// A snapshot that is so many transactions old keeps rows of the outbox from being cleaned up.
const OLD_SNAPSHOT: u64 = 1_000_000;

pub(super) fn judge(
    database: &str,
    state: &ServerState,
    config: Option<&Config<'_>>,
) -> Vec<Finding> {
    let mut findings = vec![version(database, &state.version)];
    let settings = match database {
        "PostgreSQL" => POSTGRES,
        "MySQL" => MYSQL,
        _ => SQLITE,
    };
    findings.extend(settings.iter().filter_map(|setting| setting.judge(state)));
    findings.extend(pooler(state, config));
    findings.extend(transactions(state));
    findings
}

/// The pool of the relay against what it does at the same time, and against the server.
pub(super) fn pool(config: &Config<'_>, state: &ServerState) -> Result<Finding, Failure> {
    const CHECK: &str = "pool";
    let pool = super::relay::pool(config)? as usize;
    let concurrency = config.relay.concurrency();
    let limit = state
        .setting("max_connections")
        .and_then(|limit| limit.parse::<usize>().ok());
    let what = format!("{pool} connections at a concurrency of {concurrency}");
    Ok(match limit {
        Some(limit) if pool >= limit => Finding::error(
            CHECK,
            format!("{what}, and the server has {limit} for all"),
            "make the pool smaller, or `max_connections` larger",
        ),
        _ if pool < concurrency + 3 => Finding::warning(
            CHECK,
            what,
            "give the pool the relay's concurrency and 3 more: for leases, for listening, to spare",
        ),
        _ => Finding::ok(CHECK, what),
    })
}

fn version(database: &str, version: &str) -> Finding {
    const CHECK: &str = "server";
    let numbers: Vec<u32> = version
        .split(|letter: char| !letter.is_ascii_digit())
        .map_while(|number| number.parse().ok())
        .collect();
    let (name, oldest): (_, &[u32]) = match database {
        "PostgreSQL" => ("PostgreSQL", &[15]),
        "MySQL" if version.contains("MariaDB") => ("MariaDB", &[10, 11]),
        "MySQL" => ("MySQL", &[8]),
        _ => ("SQLite", &[3, 35]),
    };
    let what = format!("{name} {version}");
    if numbers.as_slice() < oldest {
        let oldest: Vec<_> = oldest.iter().map(u32::to_string).collect();
        let advice = format!(
            "the oldest version that is supported is {}",
            oldest.join(".")
        );
        return Finding::error(CHECK, what, &advice);
    }
    Finding::ok(CHECK, what)
}

fn pooler(state: &ServerState, config: Option<&Config<'_>>) -> Option<Finding> {
    const CHECK: &str = "pooler";
    const WHAT: &str = "two connections had one session of the server: a pooler such as PgBouncer lends it for a transaction at a time";
    if !state.shares_sessions {
        return None;
    }
    Some(if config.is_some_and(|config| config.relay.notify) {
        Finding::error(
            CHECK,
            WHAT,
            "`notify = true` does not work through it: leave it out, or connect to the server itself",
        )
    } else {
        Finding::warning(
            CHECK,
            WHAT,
            "PgBouncer must know prepared statements (1.21 or newer, `max_prepared_statements` above 0)",
        )
    })
}

/// Where a statement fails because the session behind the pooler is another one than before.
pub(super) fn lost_statements(error: &Failure) -> Finding {
    Finding::error(
        "pooled_statements",
        format!("a prepared statement was not there any more: {error}"),
        "PgBouncer must be 1.21 or newer with `max_prepared_statements` above 0; or connect to the server itself",
    )
}

fn transactions(state: &ServerState) -> Vec<Finding> {
    const CHECK: &str = "long_transactions";
    const ADVICE: &str = "nothing that it may still see is cleaned up; find out who holds it, and limit how long a session may stay idle in a transaction";
    let mut findings = Vec::new();
    match state.long_transactions.as_deref() {
        None if state.setting("autocommit").is_some() => {
            findings.push(Finding::not_checked(
                CHECK,
                "it takes the privilege PROCESS; on MySQL at times also SELECT on performance_schema, and its consumer events_transactions_current",
            ));
        }
        None => {}
        Some([]) => findings.push(Finding::ok(CHECK, "none over a minute")),
        Some(long) => findings.extend(long.iter().take(5).map(|transaction| {
            let (session, age) = (transaction.session, span(transaction.age));
            let what = format!("session {session}, open for {age}: {}", transaction.state);
            Finding::warning(CHECK, what, ADVICE)
        })),
    }
    if let Some(age) = state.oldest_snapshot.filter(|age| *age > OLD_SNAPSHOT) {
        let what = format!("the oldest snapshot is {age} transactions old");
        findings.push(Finding::warning("oldest_snapshot", what, ADVICE));
    }
    findings
}

/// A setting, and for which values something is wrong with it.
struct Setting {
    name: &'static str,
    judge: fn(&str) -> Option<Verdict>,
}

type Verdict = (Level, &'static str);

impl Setting {
    fn judge(&self, state: &ServerState) -> Option<Finding> {
        let value = state.setting(self.name)?;
        // Without a binary log there is nothing to synchronise and nothing to write.
        if matches!(self.name, "sync_binlog" | "binlog_format")
            && state.setting("log_bin") != Some("ON")
        {
            return None;
        }
        let what = format!("{} = {value}", self.name);
        Some(match (self.judge)(&value.to_lowercase()) {
            Some((level, advice)) => Finding::new(level, self.name, what, advice),
            None => Finding::ok(self.name, what),
        })
    }
}

macro_rules! settings {
    ($($list:ident: $($name:literal $value:ident => $verdict:expr;)*)*) => {$(
        const $list: &[Setting] = &[$(Setting { name: $name, judge: |$value| $verdict }),*];
    )*};
}

const LOSES: &str = "a crash can lose calls that were answered as committed";

settings! {
    POSTGRES:
    "synchronous_commit" value => (value == "off").then_some((Error, LOSES));
    "fsync" value => (value != "on").then_some((Error, "a crash can corrupt the database; set it to on"));
    "full_page_writes" value => (value != "on").then_some((Warning, "a crash can corrupt pages unless the file system writes them as a whole"));
    "default_transaction_isolation" value => (value == "read uncommitted").then_some((Warning, "PostgreSQL treats it as read committed; say that"));
    "in_recovery" value => (value == "true").then_some((Error, "this is a standby, which takes no writes; connect to the primary"));
    "max_connections" _value => None;

    MYSQL:
    "transaction_isolation" value => (value == "read-uncommitted").then_some((Warning, "the toolkit never reads what is not committed: a relay and this program change the session and back, for two round trips a statement; use read-committed or repeatable-read"));
    "autocommit" value => matches!(value, "off" | "0").then_some((Warning, "a relay and this program switch it on and off again, for two round trips a statement; set it to on"));
    "completion_type" value => (value != "no_chain").then_some((Warning, "the toolkit sets it to NO_CHAIN in each session that it uses, and leaves it there"));
    "binlog_format" value => (value == "statement").then_some((Error, "a call at read committed, the default, is refused; set it to ROW or MIXED"));
    "innodb_rollback_on_timeout" _value => None;
    "innodb_flush_log_at_trx_commit" value => match value {
        "1" => None,
        "0" => Some((Error, LOSES)),
        _ => Some((Warning, "a crash of the machine can lose calls that were answered as committed; set it to 1")),
    };
    "sync_binlog" value => (value != "1").then_some((Warning, "a crash of the machine can take events from the replicas that the server has; set it to 1"));
    "read_only" value => matches!(value, "on" | "1").then_some((Warning, "this may be a replica, which takes no writes; connect to the primary"));
    "max_connections" _value => None;

    SQLITE:
    "foreign_keys" value => (value != "1").then_some((Error, "the gate at COMMIT is a foreign key: switch them on in every connection (the default of sqlx)"));
    "journal_mode" value => match value {
        "wal" => None,
        "off" | "memory" => Some((Error, "a crash can corrupt the database; use WAL")),
        _ => Some((Warning, "readers and the writer block each other; `PRAGMA journal_mode = WAL` stays with the file")),
    };
    "synchronous" value => match value {
        "0" => Some((Error, LOSES)),
        "1" => Some((Warning, "a loss of power can lose calls that were answered as committed; use FULL (2)")),
        _ => None,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(settings: &[Setting], name: &str, value: &str) -> Option<Level> {
        let found = settings.iter().find(|setting| setting.name == name);
        found
            .and_then(|setting| (setting.judge)(value))
            .map(|(level, _)| level)
    }

    #[test]
    fn settings_that_lose_commits_are_errors() {
        assert_eq!(level(POSTGRES, "synchronous_commit", "off"), Some(Error));
        assert_eq!(level(POSTGRES, "synchronous_commit", "remote_apply"), None);
        assert_eq!(level(MYSQL, "autocommit", "off"), Some(Warning));
        assert_eq!(level(MYSQL, "binlog_format", "statement"), Some(Error));
        let flush = "innodb_flush_log_at_trx_commit";
        let levels = ["0", "1", "2"].map(|value| level(MYSQL, flush, value));
        assert_eq!(levels, [Some(Error), None, Some(Warning)]);
        assert_eq!(level(SQLITE, "foreign_keys", "0"), Some(Error));
        assert_eq!(level(SQLITE, "journal_mode", "memory"), Some(Error));
    }

    #[test]
    fn versions_are_compared_by_number() {
        let levels = |database, versions: &[&str]| -> Vec<_> {
            versions
                .iter()
                .map(|text| version(database, text).level)
                .collect()
        };
        assert_eq!(
            levels("PostgreSQL", &["14.9", "15.2 (Debian 15.2-1)", "17beta1"]),
            [Error, Level::Ok, Level::Ok]
        );
        assert_eq!(
            levels(
                "MySQL",
                &[
                    "10.6.1-MariaDB",
                    "10.11.3-MariaDB-1",
                    "11.4.2-MariaDB",
                    "5.7.44",
                    "8.0.36"
                ]
            ),
            [Error, Level::Ok, Level::Ok, Error, Level::Ok]
        );
        assert_eq!(levels("SQLite", &["3.34.1", "3.51.3"]), [Error, Level::Ok]);
    }
}
