//! `effectively status`

use std::collections::BTreeMap;

use effectively::{Backlog, Dialect, LeaseState, Ledger};
use serde_json::{Value, json};

use crate::{
    args,
    commands::doctor::tables::START_A_RELAY,
    failure::{End, Failure},
    output::{Output, count, span, table},
};

pub(crate) async fn run<DB: Dialect>(
    ledger: &Ledger<DB>,
    args: &args::Status,
    out: &Output,
) -> Result<End, Failure> {
    let outbox = ledger.outbox();
    let (backlog, leases) = (outbox.backlog().await?, outbox.leases().await?);
    let holders = holders(&leases);
    let held: usize = holders.values().sum();
    let free = leases.len() - held;
    let warnings = warnings(&backlog);
    let json = json!({
        "database": DB::NAME,
        "events": {
            "pending": pending(&backlog),
            "due": backlog.due,
            "delayed": backlog.delayed,
            "retrying": backlog.retrying,
            "oldest_due_ms": millis(backlog.oldest),
        },
        "dead_letters": backlog.dead_letters,
        "interrupted_keys": backlog.interrupted_keys,
        "relays": backlog.relays,
        "leases": {
            "free": free,
            "holders": holders.iter().map(|(relay, leases)| json!({ "relay": relay, "leases": leases })).collect::<Vec<_>>(),
            "partitions": args.leases.then(|| leases.iter().map(lease_json).collect::<Vec<_>>()),
        },
        "warnings": warnings,
    });
    out.result(&json, || {
        let mut text = table(&[
            row("events", pending(&backlog)),
            row("  due", backlog.due),
            row("  delayed", backlog.delayed),
            row("  retrying", backlog.retrying),
            row("  oldest due", span(backlog.oldest)),
            row("dead letters", backlog.dead_letters),
            row("interrupted keys", backlog.interrupted_keys),
            row("relays", backlog.relays),
            row("leases", format!("{held} held, {free} free")),
        ]);
        for (relay, leases) in &holders {
            text.push_str(&format!("  {relay}  {leases}\n"));
        }
        if args.leases {
            text.push('\n');
            text.push_str(&lease_table(&leases));
        }
        for warning in &warnings {
            text.push_str(&format!("\nwarning: {warning}\n"));
        }
        text
    })?;
    Ok(End::Fine)
}

fn warnings(backlog: &Backlog) -> Vec<String> {
    let alone = backlog.due > 0 && backlog.relays == 0;
    let warning = || {
        format!(
            "{} due, and no relay is alive: {START_A_RELAY}",
            count(backlog.due, "event")
        )
    };
    alone.then(warning).into_iter().collect()
}

fn pending(backlog: &Backlog) -> u64 {
    backlog.due + backlog.delayed + backlog.retrying
}

fn holders(leases: &[LeaseState]) -> BTreeMap<String, usize> {
    let mut holders = BTreeMap::new();
    for holder in leases.iter().filter_map(|lease| lease.holder) {
        *holders.entry(holder.to_string()).or_default() += 1;
    }
    holders
}

fn row(name: &str, value: impl ToString) -> Vec<String> {
    vec![name.to_owned(), value.to_string()]
}

fn lease_table(leases: &[LeaseState]) -> String {
    let mut rows = vec![
        ["partition", "holder", "epoch", "expires in"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for lease in leases {
        let (holder, expires) = match lease.holder {
            Some(holder) => (holder.to_string(), span(lease.expires_in)),
            None => ("free".to_owned(), String::new()),
        };
        rows.push(vec![
            lease.partition.to_string(),
            holder,
            lease.epoch.to_string(),
            expires,
        ]);
    }
    table(&rows)
}

fn lease_json(lease: &LeaseState) -> Value {
    json!({
        "partition": lease.partition,
        "holder": lease.holder.map(|holder| holder.to_string()),
        "epoch": lease.epoch,
        "expires_in_ms": lease.holder.map(|_| millis(lease.expires_in)),
    })
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
