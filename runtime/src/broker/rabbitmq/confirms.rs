//! What became of the messages of one batch.

use std::{
    collections::HashSet,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use lapin::{Confirmation, ErrorKind, PublisherConfirm, types::ShortString};
use tokio::time::{Instant, timeout_at};

use crate::model::{Envelope, delivery::Delivery};

/// What was sent on a channel, in its order.
///
/// A channel is for one batch at a time: lapin hands a returned message out with whichever confirm comes next on the channel.
/// So the confirm of an unroutable event may look clean, and that of another one may hold its message. Here all returned
/// messages of the channel are seen, and matched with their events by the id.
#[derive(Default)]
pub(crate) struct Sent<'a> {
    events: Vec<&'a Envelope>,
    slots: Vec<Slot>,
}

/// What is known of one event.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each event of a batch, each ends as this variant"
)]
pub(crate) enum Slot {
    Waiting(PublisherConfirm),
    Heard(lapin::Result<Confirmation>),
    Answered(Delivery),
}

impl<'a> Sent<'a> {
    pub(crate) fn push(&mut self, event: &'a Envelope, slot: Slot) {
        self.events.push(event);
        self.slots.push(slot);
    }

    /// Waits for the confirms until the end. Also the code with which the broker closed the channel, if it did.
    pub(crate) async fn settle(mut self, end: Instant) -> (Vec<Delivery>, Option<u16>) {
        let _ = timeout_at(end, poll_fn(|context| self.poll(context))).await;
        let in_time: Vec<_> = self.slots.iter().map(Slot::is_settled).collect();
        // One more look, for returned messages only. Those of events that were confirmed in time are all there now: each came
        // out with a confirm that was settled before the event's own, if perhaps after it was looked at.
        let _: Poll<()> = poll_fn(|context| Poll::Ready(self.poll(context))).await;
        let returned: HashSet<_> = self.slots.iter().filter_map(Slot::returned_id).collect();
        let closed = self.slots.iter().find_map(Slot::closed_by_broker);
        let mut answers = Vec::with_capacity(self.slots.len());
        for ((event, slot), in_time) in self.events.iter().zip(&self.slots).zip(in_time) {
            answers.push(match slot {
                Slot::Answered(delivery) => delivery.clone(),
                _ if returned.contains(event.id.to_string().as_str()) => {
                    Delivery::rejected("no queue takes the routing key")
                }
                Slot::Heard(Ok(confirmation)) if in_time => confirmed(confirmation),
                Slot::Heard(Err(error)) => lost(error),
                _ => late(),
            });
        }
        (answers, closed)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for slot in &mut self.slots {
            slot.poll(context);
        }
        match self.slots.iter().all(Slot::is_settled) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Slot {
    fn poll(&mut self, context: &mut Context<'_>) {
        if let Self::Waiting(confirm) = self
            && let Poll::Ready(heard) = Pin::new(confirm).poll(context)
        {
            *self = Self::Heard(heard);
        }
    }

    fn is_settled(&self) -> bool {
        !matches!(self, Self::Waiting(_))
    }

    fn returned_id(&self) -> Option<&str> {
        let Self::Heard(Ok(Confirmation::Ack(message) | Confirmation::Nack(message))) = self else {
            return None;
        };
        let properties = &message.as_ref()?.delivery.properties;
        properties.message_id().as_ref().map(ShortString::as_str)
    }

    fn closed_by_broker(&self) -> Option<u16> {
        match self {
            Self::Heard(Err(error)) if error.is_amqp_soft_error() => code(error),
            _ => None,
        }
    }
}

fn confirmed(confirmation: &Confirmation) -> Delivery {
    match confirmation {
        // A returned message in it is that of another event: the returned ones are sorted out before.
        Confirmation::Ack(_) => Delivery::Published,
        Confirmation::Nack(_) => Delivery::rejected("RabbitMQ did not store it (nack)"),
        Confirmation::NotRequested => Delivery::unavailable("the channel has no confirms"),
    }
}

const ACCESS_REFUSED: u16 = 403;
pub(crate) const NOT_FOUND: u16 = 404;
/// Also CONTENT_TOO_LARGE, which some brokers say instead.
const PRECONDITION_FAILED: [u16; 2] = [406, 311];

pub(crate) fn refusal(code: u16) -> Delivery {
    match code {
        NOT_FOUND => Delivery::rejected("there is no such exchange"),
        ACCESS_REFUSED => Delivery::rejected("publishing is not permitted"),
        _ if PRECONDITION_FAILED.contains(&code) => {
            Delivery::refused_for_good("it is larger than max_message_size, or a header is wrong")
        }
        _ => Delivery::rejected(format!("RabbitMQ refused it with AMQP error {code}")),
    }
}

fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// The broker's text stays out: it quotes names.
pub(crate) fn lost(error: &lapin::Error) -> Delivery {
    match (error.kind(), code(error)) {
        (_, Some(code)) => Delivery::unavailable(format!("RabbitMQ answered AMQP error {code}")),
        (ErrorKind::IOError(error), _) => {
            Delivery::unavailable(format!("no connection to RabbitMQ: {}", error.kind()))
        }
        _ => Delivery::unavailable("the connection to RabbitMQ is lost"),
    }
}

pub(crate) fn late() -> Delivery {
    Delivery::unavailable("RabbitMQ did not confirm in time")
}
