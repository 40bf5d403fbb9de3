//! Leases: says that this relay is alive, extends what it holds, and takes and gives up its share.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::timeout};

use super::{Shared, group::Standing, partitions::Lost};
use crate::{
    error::{Error, ErrorKind},
    model::PARTITIONS,
    store::Dialect,
};

/// Keeps the leases until it is dropped. Ends when relays with other routes for the same topics are alive and stay alive.
pub(super) async fn keep<DB: Dialect>(shared: Arc<Shared<DB>>) -> Error {
    let ttl = shared.settings.lease;
    let mut refused_since: Option<Instant> = None;
    loop {
        let pause = match turn(&shared).await {
            // Others come and go while a lease is young: three looks in its time.
            Ok(None) => {
                refused_since = None;
                ttl / 3
            }
            Ok(Some(others)) => {
                // One that was killed looks alive until its time is over.
                match refusal(&shared, &others) {
                    Some(refusal) => {
                        let since = refused_since.get_or_insert_with(Instant::now);
                        if since.elapsed() > ttl * 2 {
                            return refusal;
                        }
                    }
                    None => refused_since = None,
                }
                tracing::warn!(
                    target: "effectively::relay", routes = shared.port.group().routes, others = ?others,
                    "relays with other routes for the same topics are alive: this one publishes nothing until they have ended"
                );
                ttl / 3
            }
            Err(error) => {
                tracing::warn!(target: "effectively::relay", %error, "the leases cannot be extended");
                ttl / 20
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Extends what is held, gives up and takes what is due. Answers the routes of the relays that this one must not run beside.
async fn turn<DB: Dialect>(shared: &Shared<DB>) -> Result<Option<Vec<Option<String>>>, Error> {
    let ttl = shared.settings.lease;
    // The clock is read before the question, so that here a lease ends before it does in the database.
    let mut until = Instant::now() + headroom(ttl);
    let mut pulse = shared.port.heartbeat(ttl).await?;
    if pulse.alive.is_none() {
        let others = shared.port.join(ttl).await?;
        if !others.is_empty() {
            step_back(shared).await?;
            return Ok(Some(others));
        }
        until = Instant::now() + headroom(ttl);
        pulse = shared.port.heartbeat(ttl).await?;
    }
    let Some(alive) = pulse.alive else {
        // Its time was over before it was asked, or a relay of an earlier version has come: the next turn finds out.
        return Ok(None);
    };
    let all = usize::from(PARTITIONS.unsigned_abs());
    if pulse.leases < all as u64 {
        if shared.partitions.len() > 0 {
            tracing::error!(target: "effectively::relay", "leases were deleted; they are made again");
        }
        shared.port.make_leases().await?;
    }
    let recovered = shared.partitions.recovered();
    let renewed = shared.port.renew(&recovered).await?;
    let lost = shared.partitions.renewed(&renewed, until, &recovered);
    for lost in &lost {
        metrics::counter!("effectively_relay_leases_lost_total").increment(1);
        tracing::warn!(target: "effectively::relay", partition = lost.lease.partition, "a lease was lost");
    }
    revoke(shared, &lost).await;
    let (held, share) = (shared.partitions.len(), share(alive));
    give_up(shared, held.saturating_sub(share)).await?;
    if held < share {
        let leases = shared.port.acquire(share - held).await?;
        if !leases.is_empty() {
            tracing::info!(target: "effectively::relay", partitions = leases.len(), "took over partitions");
            shared.partitions.acquired(leases, until);
            shared.changed.notify_one();
        }
    }
    metrics::gauge!("effectively_relay_partitions").set(shared.partitions.len() as f64);
    Ok(None)
}

/// The error of a relay that overlaps with one of these and shares no route with it.
fn refusal<DB: Dialect>(shared: &Shared<DB>, others: &[Option<String>]) -> Option<Error> {
    let group = shared.port.group();
    let overlaps = |routes: &&String| group.beside(Some(routes)) == Standing::Overlaps;
    let routes = others.iter().flatten().find(overlaps)?;
    let kind = ErrorKind::RoutesOverlap {
        routes: group.routes.clone(),
        others: routes.clone(),
    };
    Some(kind.into())
}

/// Holds nothing while others must publish alone.
async fn step_back<DB: Dialect>(shared: &Shared<DB>) -> Result<(), Error> {
    let held = shared.partitions.take_all();
    metrics::gauge!("effectively_relay_partitions").set(0.0);
    if held.is_empty() {
        return Ok(());
    }
    revoke(shared, &held).await;
    shared.port.resign().await
}

/// Gives so many up for other relays, those first of which nothing is in flight.
async fn give_up<DB: Dialect>(shared: &Shared<DB>, surplus: usize) -> Result<(), Error> {
    let left = shared.partitions.leave(surplus);
    if left.is_empty() {
        return Ok(());
    }
    revoke(shared, &left).await;
    let leases: Vec<_> = left.iter().map(|lost| lost.lease).collect();
    tracing::info!(target: "effectively::relay", partitions = leases.len(), "gave partitions up to other relays");
    shared.port.give_up(&leases).await
}

/// Tells the sinks that know them that these partitions are not ours any more. A sink that panics or does not return is left
/// alone: the other leases must be extended in time.
pub(super) async fn revoke<DB: Dialect>(shared: &Shared<DB>, lost: &[Lost]) {
    let mut told = JoinSet::new();
    for lost in lost {
        for route in &lost.assigned {
            let sink = Arc::clone(&shared.routes.get(*route).route.sink);
            let partition = lost.lease.partition;
            told.spawn(async move { sink.revoked(partition).await });
        }
    }
    let all = async {
        while let Some(returned) = told.join_next().await {
            if returned.is_err() {
                tracing::error!(target: "effectively::relay", "a sink panicked over a partition that was given up");
            }
        }
    };
    if timeout(shared.settings.lease / 5, all).await.is_err() {
        tracing::error!(target: "effectively::relay", "a sink does not return from a partition that was given up");
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
