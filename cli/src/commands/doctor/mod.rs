//! `effectively doctor`: what is looked at, and what is said about it. What is wrong stands in the files beside this one.

use effectively::{Backlog, Dialect, Error, ErrorKind, Ledger, Leftovers, ScopeUse};
use serde_json::{Value, json};

use super::relay;
use crate::{
    args::{self, Args},
    config::{Config, Source},
    database,
    failure::{End, Failure},
    output::{Output, plain},
    sinks,
};

mod server;
pub(crate) mod tables;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Ok,
    NotChecked,
    Warning,
    Error,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotChecked => "not checked",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug)]
pub(crate) struct Finding {
    level: Level,
    /// A name for machines.
    check: String,
    what: String,
    /// What to do; empty when there is nothing.
    advice: String,
}

impl Finding {
    pub(crate) fn new(level: Level, check: &str, what: impl Into<String>, advice: &str) -> Self {
        Self {
            level,
            check: check.to_owned(),
            what: plain(&what.into()),
            advice: advice.to_owned(),
        }
    }

    pub(crate) fn ok(check: &str, what: impl Into<String>) -> Self {
        Self::new(Level::Ok, check, what, "")
    }

    pub(crate) fn warning(check: &str, what: impl Into<String>, advice: &str) -> Self {
        Self::new(Level::Warning, check, what, advice)
    }

    pub(crate) fn error(check: &str, what: impl Into<String>, advice: &str) -> Self {
        Self::new(Level::Error, check, what, advice)
    }

    pub(crate) fn not_checked(check: &str, what: &str) -> Self {
        Self::new(Level::NotChecked, check, what, "")
    }

    fn json(&self) -> Value {
        let level = self.level.word().replace(' ', "_");
        let advice = (!self.advice.is_empty()).then_some(&self.advice);
        json!({ "level": level, "check": self.check, "what": self.what, "advice": advice })
    }
}

pub(crate) async fn run(args: &Args, doctor: &args::Doctor, out: &Output) -> Result<End, Failure> {
    let source = doctor.config.as_deref().map(Source::read).transpose()?;
    let config = source.as_ref().map(Config::parse).transpose()?;
    if let Some(config) = &config {
        // What cannot be built is said with its place, as `effectively relay` does.
        drop(sinks::routes(config).await?);
        relay::pool(config)?;
    }
    let at = match &config {
        Some(config) => relay::at(args, config),
        None => args.at(),
    };
    let database = database::connect(&at, 2).await?;
    let (mut findings, mut end) = (Vec::new(), End::Fine);
    let usable =
        database::on!(&database, ledger => look(ledger, config.as_ref(), &mut findings).await)?;
    if !usable {
        end = End::Tables;
    }
    if let Some(config) = &config {
        for route in &config.routes {
            findings.extend(sinks::examine(route, doctor.retention).await);
        }
    }
    let worst = |level| findings.iter().any(|finding| finding.level == level);
    if end == End::Fine && (worst(Level::Error) || (doctor.strict && worst(Level::Warning))) {
        end = End::Findings;
    }
    let json = json!({ "findings": findings.iter().map(Finding::json).collect::<Vec<_>>() });
    out.result(&json, || text(&findings))?;
    Ok(end)
}

fn text(findings: &[Finding]) -> String {
    let width = findings
        .iter()
        .map(|finding| finding.check.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let (level, check) = (finding.level.word(), &finding.check);
        text.push_str(&format!("{level:11}  {check:width$}  {}\n", finding.what));
        if !finding.advice.is_empty() {
            text.push_str(&format!(
                "{:11}  {:width$}  -> {}\n",
                "", "", finding.advice
            ));
        }
    }
    text
}

/// Everything that the database can tell. `false`: its tables are missing or of another version.
async fn look<DB: Dialect>(
    ledger: &Ledger<DB>,
    config: Option<&Config<'_>>,
    findings: &mut Vec<Finding>,
) -> Result<bool, Failure> {
    let state = ledger.server().await?;
    findings.extend(server::judge(DB::NAME, &state, config));
    if let Some(config) = config {
        findings.push(server::pool(config, &state)?);
    }
    let (finding, usable) = version(ledger.schema_version().await, Ledger::<DB>::SCHEMA_VERSION)?;
    findings.push(finding);
    if usable {
        match contents(ledger).await {
            Ok((backlog, leftovers, scopes)) => {
                findings.extend(tables::judge(&backlog, &leftovers));
                findings.extend(tables::shared(&scopes));
            }
            Err(error) if state.shares_sessions && *error.kind() == ErrorKind::Database => {
                findings.push(server::lost_statements(&Failure::from(error)));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(usable)
}

async fn contents<DB: Dialect>(
    ledger: &Ledger<DB>,
) -> Result<(Backlog, Leftovers, Vec<ScopeUse>), Error> {
    Ok((
        ledger.outbox().backlog().await?,
        ledger.leftovers().await?,
        ledger.shared_scopes().await?,
    ))
}

fn version(found: Result<Option<i64>, Error>, needed: i64) -> Result<(Finding, bool), Failure> {
    const CHECK: &str = "tables";
    match found {
        Ok(Some(version)) if version < needed => Ok((
            Finding::error(
                CHECK,
                format!("at version {version}, this program needs {needed}"),
                "run `effectively migrate`",
            ),
            false,
        )),
        Ok(Some(version)) if version > needed => Ok((
            Finding::warning(
                CHECK,
                format!("at version {version}, newer than this program's {needed}"),
                "use the newest version of the program that is in use anywhere",
            ),
            true,
        )),
        Ok(Some(version)) => Ok((Finding::ok(CHECK, format!("at version {version}")), true)),
        Ok(None) => Ok((
            Finding::ok(CHECK, "made by another tool, which noted no version"),
            true,
        )),
        Err(error) if matches!(error.kind(), ErrorKind::TablesMissing) => Ok((
            Finding::error(
                CHECK,
                "missing in this database",
                "run `effectively migrate`, or give --schema and --table-prefix if they have other names",
            ),
            false,
        )),
        Err(error) => Err(error.into()),
    }
}
