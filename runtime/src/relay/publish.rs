//! Publishing what was read of one route, in the order of each partition key.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    task::{JoinHandle, JoinSet},
    time::timeout_at,
};

use super::{Shared, breaker::Admission, route::Routed};
use crate::{
    error::Error,
    model::{Envelope, Lane},
    sink::{Delivery, Unavailable},
    store::{Dialect, Lease},
};

/// What became of one event.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) route: usize,
    pub(super) partition: u16,
    pub(super) outbox_id: i64,
    pub(super) attempts: u16,
    pub(super) staged_at: Duration,
    pub(super) delivery: Delivery,
}

/// What became of the events of one route. Those that are not among `answers` stay as they are.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) answers: Vec<Answered>,
    /// The sink panicked over several events: it is not known over which.
    pub(super) panicked: bool,
}

/// What came of one call of a sink.
enum Called {
    Answered(Vec<Answered>),
    Panicked,
    /// The lease ended before the sink answered.
    Late,
}

/// Publishes events of one route, which are in the order of the outbox.
pub(super) async fn publish<DB: Dialect>(
    shared: &Shared<DB>,
    route: usize,
    mut events: Vec<Envelope>,
    leases: &[Lease],
) -> Published {
    let mut published = Published::default();
    let routed = shared.routes.get(route);
    let probe = match routed.breaker.admit() {
        Admission::Everything => None,
        Admission::Nothing => return published,
        Admission::Probe => {
            events.truncate(1);
            Some(Probe(routed))
        }
    };
    if let Err(down) = assign(shared, route, &mut events, leases).await {
        open(routed, &down);
        return published;
    }
    let of_events = |lease: &&Lease| {
        events
            .iter()
            .any(|event| event.partition == lease.partition)
    };
    let leases: Vec<Lease> = leases.iter().filter(of_events).copied().collect();
    let (down, unclear) = in_waves(shared, route, events, &leases, &mut published).await;
    if unclear {
        shared.partitions.unassign(&leases, route);
    }
    match down {
        Some(down) => open(routed, &down),
        None if published.answers.is_empty() => {}
        None => {
            if routed.breaker.close() {
                tracing::info!(target: "effectively::relay", route = %routed.pattern, "the sink is back");
            }
        }
    }
    drop(probe);
    published
}

/// Hands the events over, one call for all if the sink keeps the order, else one call after the other with at most one event of
/// each partition key. Answers why the sink is down, if it is, and whether it is unclear what it has published.
async fn in_waves<DB: Dialect>(
    shared: &Shared<DB>,
    route: usize,
    events: Vec<Envelope>,
    leases: &[Lease],
    published: &mut Published,
) -> (Option<Unavailable>, bool) {
    let routed = shared.routes.get(route);
    let keeps_order = routed.route.sink.keeps_order();
    let mut stopped: HashSet<Lane> = HashSet::new();
    let mut left = VecDeque::from(events);
    while !left.is_empty() {
        let wave = if keeps_order {
            std::mem::take(&mut left).into()
        } else {
            next_wave(&mut left, &stopped)
        };
        if wave.is_empty() {
            break;
        }
        let lanes: Vec<Lane> = if keeps_order {
            Vec::new()
        } else {
            wave.iter().map(Envelope::lane).collect()
        };
        let answers = match call(shared, route, wave, leases).await {
            Called::Answered(answers) => answers,
            Called::Late => return (None, true),
            Called::Panicked => {
                published.panicked = true;
                return (None, true);
            }
        };
        let mut down = None;
        for (place, answered) in answers.into_iter().enumerate() {
            let goes_on = match &answered.delivery {
                Delivery::Published => true,
                Delivery::Rejected(_) => lanes.get(place).is_some_and(|lane| !routed.parks(lane)),
                Delivery::Unavailable(why) => {
                    // Of several, the one that asks for the longest pause.
                    if down
                        .as_ref()
                        .is_none_or(|down: &Unavailable| down.at_least() < why.at_least())
                    {
                        down = Some(why.clone());
                    }
                    false
                }
                Delivery::Held => false,
            };
            if let Some(lane) = lanes.get(place).filter(|_| !goes_on) {
                stopped.insert(lane.clone());
            }
            published.answers.push(answered);
        }
        if down.is_some() {
            return (down, true);
        }
    }
    (None, false)
}

/// Takes the first event of each partition key that has not stopped; the others stay, in their order.
fn next_wave(left: &mut VecDeque<Envelope>, stopped: &HashSet<Lane>) -> Vec<Envelope> {
    let (mut wave, mut rest) = (Vec::new(), VecDeque::new());
    let mut taken: HashSet<Lane> = HashSet::new();
    for event in left.drain(..) {
        let lane = event.lane();
        if stopped.contains(&lane) {
            continue;
        }
        if taken.insert(lane) {
            wave.push(event);
        } else {
            rest.push_back(event);
        }
    }
    *left = rest;
    wave
}

/// One call of the sink, in a task of its own: a panic in it is its own affair, and so is what it does when it is dropped.
async fn call<DB: Dialect>(
    shared: &Shared<DB>,
    route: usize,
    wave: Vec<Envelope>,
    leases: &[Lease],
) -> Called {
    let mut answers: Vec<Answered> = wave
        .iter()
        .map(|event| Answered::held(route, event))
        .collect();
    let sink = Arc::clone(&shared.routes.get(route).route.sink);
    let mut task = Aborting(tokio::spawn(async move { sink.publish(&wave).await }));
    let patience = Instant::now() + shared.settings.publish_timeout;
    let ended = loop {
        // Past the end of the lease another relay publishes, so nothing of ours may still be on its way.
        let Some(until) = shared.partitions.until(leases) else {
            return Called::Late;
        };
        match timeout_at(until.min(patience).into(), &mut task.0).await {
            Ok(ended) => break Some(ended),
            Err(_) if Instant::now() >= patience => break None,
            // The lease was extended meanwhile, or is over.
            Err(_) => {}
        }
    };
    let deliveries = match ended {
        Some(Ok(deliveries)) if deliveries.len() == answers.len() => deliveries,
        Some(Ok(_)) => {
            vec![Delivery::unavailable("the sink did not answer for each event"); answers.len()]
        }
        Some(Err(_)) if answers.len() == 1 => vec![Delivery::rejected("the sink panicked")],
        Some(Err(_)) => return Called::Panicked,
        None => vec![Delivery::unavailable("the sink did not answer in time"); answers.len()],
    };
    for (answered, delivery) in answers.iter_mut().zip(deliveries) {
        answered.delivery = delivery;
    }
    Called::Answered(answers)
}

/// Tells the sink of partitions that it does not know to be ours. What it then knows to be published is settled and not
/// published again.
///
/// The lease is asked for after that, not before: a relay that was stopped in between shuts out its successor here, finds that
/// it is no holder any more, and publishes nothing; one that is stopped after the question is shut out by its successor.
async fn assign<DB: Dialect>(
    shared: &Shared<DB>,
    route: usize,
    events: &mut Vec<Envelope>,
    leases: &[Lease],
) -> Result<(), Unavailable> {
    let failed = |error: Error| {
        tracing::warn!(target: "effectively::relay", %error, "the database failed while taking over");
        Unavailable::new("the database failed while taking over")
    };
    let sink = &shared.routes.get(route).route.sink;
    let of_batch: HashSet<u16> = events.iter().map(|event| event.partition).collect();
    let mut new = leases.to_vec();
    new.retain(|lease| {
        of_batch.contains(&lease.partition) && !shared.partitions.is_assigned(*lease, route)
    });
    if new.is_empty() {
        return Ok(());
    }
    // All at once: taking over from a former holder can take a while for each.
    let mut asked = JoinSet::new();
    for partition in new.iter().map(|lease| lease.partition) {
        let sink = Arc::clone(sink);
        asked.spawn(async move { (partition, sink.assigned(partition).await) });
    }
    let mut known = Vec::new();
    while let Some(answered) = asked.join_next().await {
        let (partition, answer) = answered.map_err(|_| Unavailable::new("the sink panicked"))?;
        let of_sink = answer?;
        known.extend(of_sink.places.into_iter().map(|place| (partition, place)));
        let events = shared.port.places_of(partition, of_sink.events).await;
        known.extend(events.map_err(failed)?);
    }
    let held = shared.port.still_held(&new).await.map_err(failed)?;
    if !known.is_empty() {
        shared.port.settle(&new, &known).await.map_err(failed)?;
    }
    for lease in new {
        if held.contains(&lease.partition) {
            shared.partitions.assign(lease, route);
        } else {
            events.retain(|event| event.partition != lease.partition);
        }
    }
    events.retain(|event| !known.contains(&(event.partition, event.outbox_id)));
    Ok(())
}

fn open(routed: &Routed, down: &Unavailable) {
    if let Some(pause) = routed.breaker.open(down.at_least()) {
        metrics::counter!("effectively_relay_outages_total", "route" => routed.pattern.to_string())
            .increment(1);
        tracing::warn!(
            target: "effectively::relay", route = %routed.pattern, reason = down.reason(), pause_ms = pause.as_millis(),
            "the sink is down; its events wait"
        );
    }
}

impl Answered {
    fn held(route: usize, event: &Envelope) -> Self {
        Self {
            route,
            partition: event.partition,
            outbox_id: event.outbox_id,
            attempts: event.attempts,
            staged_at: event.staged_at,
            delivery: Delivery::Held,
        }
    }
}

/// A probe that was given up must not keep the breaker open for ever.
struct Probe<'a>(&'a Routed);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.breaker.abandon_probe();
    }
}

struct Aborting<T>(JoinHandle<T>);

impl<T> Drop for Aborting<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
