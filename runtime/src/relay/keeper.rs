//! Leases: says that this relay is alive, extends what it holds, and takes and gives up its share.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Shared, partitions::Lost};
use crate::{error::Error, model::PARTITIONS, store::Dialect};

/// Keeps the leases until it is dropped.
pub(super) async fn keep<DB: Dialect>(shared: Arc<Shared<DB>>) {
    let ttl = shared.settings.lease;
    loop {
        let pause = match turn(&shared).await {
            // Others come and go while a lease is young: three looks in its time.
            Ok(()) => ttl / 3,
            Err(error) => {
                tracing::warn!(target: "effectively::relay", %error, "the leases cannot be extended");
                ttl / 20
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn turn<DB: Dialect>(shared: &Shared<DB>) -> Result<(), Error> {
    let ttl = shared.settings.lease;
    let alive = shared.port.heartbeat(ttl).await?;
    // The clock is read before the question, so that here a lease ends before it does in the database.
    let until = Instant::now() + headroom(ttl);
    let recovered = shared.partitions.recovered();
    let renewed = shared.port.renew(ttl, &recovered).await?;
    for lost in shared.partitions.renewed(&renewed, until, &recovered) {
        metrics::counter!("effectively_relay_leases_lost_total").increment(1);
        tracing::warn!(target: "effectively::relay", partition = lost.lease.partition, "a lease was lost");
        revoke(shared, &lost).await;
    }
    let (held, share) = (shared.partitions.len(), share(alive));
    give_up(shared, held.saturating_sub(share)).await?;
    if held < share {
        let until = Instant::now() + headroom(ttl);
        let leases = shared.port.acquire(ttl, share - held).await?;
        if !leases.is_empty() {
            tracing::info!(target: "effectively::relay", partitions = leases.len(), "took over partitions");
            shared.partitions.acquired(leases, until);
            shared.changed.notify_one();
        }
    }
    metrics::gauge!("effectively_relay_partitions").set(shared.partitions.len() as f64);
    Ok(())
}

/// Gives so many up for other relays, those first of which nothing is in flight.
async fn give_up<DB: Dialect>(shared: &Shared<DB>, surplus: usize) -> Result<(), Error> {
    let left = shared.partitions.leave(surplus);
    if left.is_empty() {
        return Ok(());
    }
    for lost in &left {
        revoke(shared, lost).await;
    }
    let leases: Vec<_> = left.iter().map(|lost| lost.lease).collect();
    tracing::info!(target: "effectively::relay", partitions = leases.len(), "gave partitions up to other relays");
    shared.port.give_up(&leases).await
}

/// Tells the sinks that know it that the partition is not ours any more.
pub(super) async fn revoke<DB: Dialect>(shared: &Shared<DB>, lost: &Lost) {
    for route in &lost.assigned {
        let sink = &shared.routes.get(*route).route.sink;
        sink.revoked(lost.lease.partition).await;
    }
}

/// How many partitions each of so many relays takes.
fn share(alive: u64) -> usize {
    let all = usize::from(PARTITIONS.unsigned_abs());
    all.div_ceil(usize::try_from(alive).unwrap_or(usize::MAX).max(1))
}

/// How long a lease is used: a fifth less than it holds, for what is on its way when it ends.
fn headroom(ttl: Duration) -> Duration {
    ttl - ttl / 5
}
