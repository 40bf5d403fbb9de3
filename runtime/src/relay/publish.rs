//! Publishing what was read of one route, in the order of each partition key.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::timeout_at};

use super::{
    Shared,
    breaker::Admission,
    call::{Called, call},
    route::Routed,
    suspects::{self, Noted},
};
use crate::{
    error::Error,
    model::{Envelope, Lane, backoff::any_of},
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
    /// Whether it is the sink that says so, and not this relay.
    is_of_the_sink: bool,
}

/// What became of the events of one route. Those that are not among `answers` stay as they are.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) answers: Vec<Answered>,
    /// The sink panicked over several events: it is not known over which.
    pub(super) panicked: bool,
    /// The database failed before the sink was asked.
    pub(super) failed: bool,
}

/// How an attempt to publish ended.
enum Ended {
    /// The sink did all it could.
    Well,
    /// The sink is down. Whether it has published what it was handed last is unclear.
    Down(Unavailable),
    /// It is unclear what the sink has published.
    Unclear,
}

/// Publishes events of one route, which are in the order of the outbox. `noted`: after a death, a single event, of which the
/// database is told before.
pub(super) async fn publish<DB: Dialect>(
    shared: &Shared<DB>,
    route: usize,
    mut events: Vec<Envelope>,
    leases: &[Lease],
    noted: bool,
) -> Published {
    let mut published = Published::default();
    let routed = shared.routes.get(route);
    let probe = match routed.breaker.admit() {
        Admission::Everything => None,
        Admission::Nothing => return published,
        Admission::Probe => {
            // Not always the same one: a sink that hangs on it would seem to be down for ever.
            let mut heads = next_wave(&mut events.into(), &HashSet::new());
            events = vec![heads.swap_remove(any_of(heads.len()))];
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
    let ended = if noted {
        alone(shared, route, events, &leases, &mut published).await
    } else {
        in_waves(shared, route, events, &leases, &mut published).await
    };
    match ended {
        Ended::Well => {}
        Ended::Unclear => shared.partitions.unassign(&leases, route),
        Ended::Down(down) => {
            shared.partitions.unassign(&leases, route);
            open(routed, &down);
            drop(probe);
            return published;
        }
    }
    if published.answers.iter().any(Answered::is_of_the_sink) && routed.breaker.close() {
        tracing::info!(target: "effectively::relay", route = %routed.pattern, "the sink is back");
    }
    drop(probe);
    published
}

/// After a death: one event, noted in the database for as long as the sink is at it.
async fn alone<DB: Dialect>(
    shared: &Shared<DB>,
    route: usize,
    events: Vec<Envelope>,
    leases: &[Lease],
    published: &mut Published,
) -> Ended {
    let (Some(event), Some(lease)) = (events.first(), leases.first().copied()) else {
        return Ended::Well;
    };
    let mut answered = Answered::held(route, event);
    match suspects::note(shared, lease, answered.outbox_id).await {
        Ok(Noted::Harmless) => {
            let ended = in_waves(shared, route, events, leases, published).await;
            suspects::acquit(shared, lease, answered.outbox_id).await;
            return ended;
        }
        Ok(Noted::Deadly(deaths)) => {
            let died = format!("a relay died {deaths} times while it published this event");
            answered.delivery = Delivery::refused_for_good(died);
            answered.is_of_the_sink = false;
            published.answers.push(answered);
        }
        Ok(Noted::Lost) => {}
        Err(error) => {
            tracing::warn!(target: "effectively::relay", %error, "the database failed");
            published.failed = true;
        }
    }
    Ended::Well
}

/// Hands the events over, one call for all if the sink keeps the order, else one call after the other with at most one event of
/// each partition key.
async fn in_waves<DB: Dialect>(
    shared: &Shared<DB>,
    route: usize,
    events: Vec<Envelope>,
    leases: &[Lease],
    published: &mut Published,
) -> Ended {
    let routed = shared.routes.get(route);
    let keeps_order = routed.keeps_order;
    let mut stopped: HashSet<Lane> = HashSet::new();
    let mut left = VecDeque::from(events);
    // Over which the sink did not answer in time, or over others in the same call: each is handed to it alone.
    let mut doubtful: VecDeque<Envelope> = VecDeque::new();
    loop {
        doubtful.retain(|event| !stopped.contains(&event.lane()));
        let wave = if let Some(event) = doubtful.pop_front() {
            vec![event]
        } else if keeps_order {
            std::mem::take(&mut left).into()
        } else {
            next_wave(&mut left, &stopped)
        };
        if wave.is_empty() {
            return Ended::Well;
        }
        let wave = Arc::new(wave);
        let answers = match call(shared, route, &wave, leases).await {
            Called::Answered(answers) => answers,
            Called::Late => return Ended::Unclear,
            Called::Panicked => {
                published.panicked = true;
                return Ended::Unclear;
            }
        };
        if answers.iter().any(Answered::is_of_the_sink) {
            routed.breaker.heard();
        }
        let mut down: Option<Unavailable> = None;
        let mut late = Vec::new();
        for (event, mut answered) in wave.iter().zip(answers) {
            if let Delivery::Unavailable(why) = &answered.delivery
                && why.is_timeout()
            {
                if wave.len() > 1 {
                    late.push(event.clone());
                    continue;
                }
                if routed.breaker.blames(event.outbox_id) {
                    answered.delivery = Delivery::rejected(why.reason().to_owned());
                    answered.is_of_the_sink = false;
                }
            }
            let goes_on = match &answered.delivery {
                Delivery::Published => true,
                Delivery::Rejected(_) => !routed.parks(&event.lane()),
                Delivery::Unavailable(why) => {
                    // Of several, the one that asks for the longest pause.
                    if down
                        .as_ref()
                        .is_none_or(|down| down.at_least() < why.at_least())
                    {
                        down = Some(why.clone());
                    }
                    false
                }
                Delivery::Held => false,
            };
            if !goes_on {
                stopped.insert(event.lane());
            }
            published.answers.push(answered);
        }
        if let Some(down) = down {
            return Ended::Down(down);
        }
        if !late.is_empty() {
            // What the sink knows to be published is not handed to it again.
            shared.partitions.unassign(leases, route);
            if let Err(down) = assign(shared, route, &mut late, leases).await {
                return Ended::Down(down);
            }
            let ours = |lease: &&Lease| shared.partitions.is_assigned(**lease, route);
            let held: HashSet<u16> = leases
                .iter()
                .filter(ours)
                .map(|lease| lease.partition)
                .collect();
            left.retain(|event| held.contains(&event.partition));
            doubtful.extend(late);
        }
    }
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
    let end = Instant::now() + shared.settings.publish_timeout;
    while let Some(answered) = timeout_at(end.into(), asked.join_next())
        .await
        .map_err(|_| Unavailable::new("the sink did not answer in time"))?
    {
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
    pub(super) fn held(route: usize, event: &Envelope) -> Self {
        Self {
            route,
            partition: event.partition,
            outbox_id: event.outbox_id,
            attempts: event.attempts,
            staged_at: event.staged_at,
            delivery: Delivery::Held,
            is_of_the_sink: true,
        }
    }

    /// The sink has taken or refused it, so it is not down.
    pub(super) fn is_of_the_sink(&self) -> bool {
        let decided = matches!(self.delivery, Delivery::Published | Delivery::Rejected(_));
        decided && self.is_of_the_sink
    }
}

/// A probe that was given up must not keep the breaker open for ever.
struct Probe<'a>(&'a Routed);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.breaker.abandon_probe();
    }
}
