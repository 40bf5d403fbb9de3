//! `effectively purge`

use effectively::{Dialect, Ledger};
use serde_json::json;

use crate::{
    failure::{End, Failure},
    output::{Output, count, progress},
};

pub(crate) async fn run<DB: Dialect>(ledger: &Ledger<DB>, out: &Output) -> Result<End, Failure> {
    let expired = ledger.leftovers().await?.expired_claims;
    let bar = progress(Some(expired), "purging");
    let purged = ledger.purge_with(|purged| {
        bar.set_length(purged.max(expired));
        bar.set_position(purged);
    });
    let purged = purged.await;
    bar.finish_and_clear();
    let purged = purged?;
    out.result(&json!({ "purged": purged }), || {
        format!("purged {}", count(purged, "outcome"))
    })?;
    Ok(End::Fine)
}
