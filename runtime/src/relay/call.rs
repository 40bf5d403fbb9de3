//! One call of a sink, bounded in time.

use std::{sync::Arc, time::Instant};

use tokio::{task::JoinHandle, time::timeout_at};

use super::{Shared, publish::Answered};
use crate::{
    model::Envelope,
    sink::Delivery,
    store::{Dialect, Lease},
};

/// What came of one call of a sink.
pub(super) enum Called {
    Answered(Vec<Answered>),
    Panicked,
    /// The lease ended before the sink answered.
    Late,
}

/// One call of the sink, in a task of its own: a panic in it is its own affair, and so is what it does when it is dropped.
pub(super) async fn call<DB: Dialect>(
    shared: &Shared<DB>,
    route: usize,
    wave: &Arc<Vec<Envelope>>,
    leases: &[Lease],
) -> Called {
    let mut answers: Vec<Answered> = wave
        .iter()
        .map(|event| Answered::held(route, event))
        .collect();
    let sink = Arc::clone(&shared.routes.get(route).route.sink);
    let batch = Arc::clone(wave);
    let mut task = Aborting(tokio::spawn(async move { sink.publish(&batch).await }));
    let patience = Instant::now() + shared.settings.publish_timeout;
    let ended = loop {
        // Past the end of the lease another relay publishes, so no call of ours may still be in flight.
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
        None => vec![Delivery::timed_out("the sink did not answer in time"); answers.len()],
    };
    for (answered, delivery) in answers.iter_mut().zip(deliveries) {
        answered.delivery = delivery;
    }
    Called::Answered(answers)
}

struct Aborting<T>(JoinHandle<T>);

impl<T> Drop for Aborting<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
