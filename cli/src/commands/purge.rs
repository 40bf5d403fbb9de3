//! `effectively purge`

use effectively::{Dialect, Ledger};
use serde_json::json;

use crate::{
    failure::{End, Failure},
    output::{Output, count, progress},
};

pub(crate) async fn run<DB: Dialect>(ledger: &Ledger<DB>, out: &Output) -> Result<End, Failure> {
    let leftovers = ledger.leftovers().await?;
    let expired = leftovers.expired_claims + leftovers.expired_events;
    let bar = progress(Some(expired), "purging");
    let at = |purged: u64| {
        bar.set_length(purged.max(expired));
        bar.set_position(purged);
    };
    let purged = async {
        let outcomes = ledger.purge_with(at).await?;
        let events = ledger.outbox();
        let events = events.purge_published_with(|events| at(outcomes + events));
        Ok::<_, Failure>((outcomes, events.await?))
    };
    let purged = purged.await;
    bar.finish_and_clear();
    let (outcomes, events) = purged?;
    out.result(
        &json!({ "purged": outcomes, "purged_events": events }),
        || {
            let outcomes = count(outcomes, "outcome");
            match events {
                0 => format!("purged {outcomes}"),
                _ => format!("purged {outcomes} and {}", count(events, "published event")),
            }
        },
    )?;
    Ok(End::Fine)
}
