//! `effectively migrate`

use effectively::{Dialect, ErrorKind, Ledger};
use serde_json::json;

use crate::{
    failure::{End, Failure},
    output::Output,
};

pub(crate) async fn run<DB: Dialect>(ledger: &Ledger<DB>, out: &Output) -> Result<End, Failure> {
    let before = match ledger.schema_version().await {
        Ok(version) => version,
        Err(error) if matches!(error.kind(), ErrorKind::TablesMissing) => None,
        Err(error) => return Err(error.into()),
    };
    ledger.migrate().await?;
    let now = ledger.schema_version().await?;
    let json = json!({ "database": DB::NAME, "from": before, "to": now });
    out.result(&json, || {
        let now = now.unwrap_or_default();
        match before {
            Some(before) if before == now => format!("the tables are at version {now} already"),
            Some(before) => format!("brought the tables from version {before} to {now}"),
            None => format!("made the tables, version {now}"),
        }
    })?;
    Ok(End::Fine)
}
