//! One connection to the broker, and who waits for which of its acknowledgements.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rumqttc::{
    Outgoing,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions,
        mqttbytes::v5::{PubAckReason, PubCompReason, PubRecReason, Publish},
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinHandle,
};

use crate::model::delivery::Delivery;

/// How many messages may be on their way at once. rumqttc keeps to the broker's Receive Maximum below that.
const WINDOW: usize = 256;

/// A connection that ends with its first error. What nobody has acknowledged by then is dropped, and so its waiters learn of it:
/// rumqttc would send it again on the next connection, where nobody waits for it.
pub(crate) struct Session {
    client: AsyncClient,
    max_packet: usize,
    window: Arc<Semaphore>,
    queue: Arc<Mutex<Queue>>,
    task: JoinHandle<()>,
}

/// The waiters of the messages that rumqttc has in its channel, in the channel's order.
#[derive(Default)]
struct Queue {
    closed: bool,
    waiters: VecDeque<Waiter>,
}

struct Waiter {
    answer: oneshot::Sender<PubAckReason>,
    _permit: OwnedSemaphorePermit,
}

impl Session {
    pub(crate) async fn open(options: MqttOptions) -> Result<Self, Delivery> {
        let (client, mut events) = AsyncClient::new(options, WINDOW);
        let connected = loop {
            match events.poll().await {
                Ok(Event::Incoming(Incoming::ConnAck(connected))) => break connected,
                Ok(_) => {}
                Err(ConnectionError::ConnectionRefused(code)) => {
                    return Err(Delivery::unavailable(format!(
                        "the broker answered {code:?}"
                    )));
                }
                Err(_) => return Err(Delivery::unavailable("the broker cannot be reached")),
            }
        };
        let max_packet = connected.properties.and_then(|told| told.max_packet_size);
        let queue = Arc::default();
        let task = tokio::spawn(run(events, Arc::clone(&queue)));
        Ok(Self {
            client,
            max_packet: max_packet.map_or(usize::MAX, |bytes| bytes as usize),
            window: Arc::new(Semaphore::new(WINDOW)),
            queue,
            task,
        })
    }

    pub(crate) fn max_packet(&self) -> usize {
        self.max_packet
    }

    pub(crate) fn is_open(&self) -> bool {
        !lock(&self.queue).closed && !self.task.is_finished()
    }

    /// Gives the message to rumqttc. What is received ends with an error when the connection does.
    pub(crate) async fn send(&self, message: Publish) -> oneshot::Receiver<PubAckReason> {
        let (answer, acknowledged) = oneshot::channel();
        let Ok(_permit) = self.window.clone().acquire_owned().await else {
            return acknowledged;
        };
        let (topic, properties) = (message.topic, message.properties.unwrap_or_default());
        let topic = String::from_utf8_lossy(&topic);
        // One lock around both: the order in the channel is the only thing that says whose message gets which packet id.
        let mut queue = lock(&self.queue);
        if !queue.closed {
            let (qos, payload) = (message.qos, message.payload);
            let client = &self.client;
            let queued = client.try_publish_with_properties(topic, qos, false, payload, properties);
            // It has room for the whole window, so it is closed if it takes nothing.
            if queued.is_ok() {
                queue.waiters.push_back(Waiter { answer, _permit });
            }
        }
        acknowledged
    }

    /// Ends the connection, for all who use it.
    pub(crate) fn close(&self) {
        self.task.abort();
        close(&self.queue);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close(queue: &Mutex<Queue>) {
    let mut queue = lock(queue);
    queue.closed = true;
    queue.waiters.clear();
}

/// Moves the connection until it ends.
async fn run(mut events: EventLoop, queue: Arc<Mutex<Queue>>) {
    let mut flight = Flight::default();
    while let Ok(event) = events.poll().await {
        if flight.step(event, &queue).is_none() {
            return close(&queue);
        }
    }
    // What was read together with the end of the connection counts: a broker may refuse a message and then hang up.
    while let Some(event) = events.state.events.pop_front() {
        if flight.step(event, &queue).is_none() {
            break;
        }
    }
    close(&queue);
}

/// Who waits for which packet id. Each step is `None` when rumqttc and this no longer agree, or rumqttc cannot go on: then the
/// connection ends.
#[derive(Default)]
struct Flight {
    sent: HashMap<u16, Waiter>,
    /// QoS 2: what the broker said when it received the message. It has yet to say that it is complete.
    received: HashMap<u16, (Waiter, PubAckReason)>,
}

impl Flight {
    fn step(&mut self, event: Event, queue: &Mutex<Queue>) -> Option<()> {
        match event {
            Event::Outgoing(Outgoing::Publish(id)) => self.leaves(id, queue),
            Event::Incoming(Incoming::PubAck(ack)) => self.acknowledged(ack.pkid, ack.reason),
            Event::Incoming(Incoming::PubRec(ack)) => self.received(ack.pkid, ack.reason),
            Event::Incoming(Incoming::PubComp(ack)) => self.complete(ack.pkid, ack.reason),
            _ => Some(()),
        }
    }

    /// The first in the channel has got its packet id. If that was not free yet, rumqttc kept it back (`AwaitAck`) and took no
    /// other from the channel, so it is still the first.
    fn leaves(&mut self, id: u16, queue: &Mutex<Queue>) -> Option<()> {
        let waiter = lock(queue).waiters.pop_front()?;
        let was_free = self.sent.insert(id, waiter).is_none();
        was_free.then_some(())
    }

    /// QoS 1.
    fn acknowledged(&mut self, id: u16, reason: PubAckReason) -> Option<()> {
        // The receiver may be gone with a publish that was dropped.
        _ = self.sent.remove(&id)?.answer.send(reason);
        Some(())
    }

    /// QoS 2, first answer.
    fn received(&mut self, id: u16, reason: PubRecReason) -> Option<()> {
        let waiter = self.sent.remove(&id)?;
        let reason = match reason {
            PubRecReason::Success => PubAckReason::Success,
            PubRecReason::NoMatchingSubscribers => PubAckReason::NoMatchingSubscribers,
            PubRecReason::UnspecifiedError => PubAckReason::UnspecifiedError,
            PubRecReason::ImplementationSpecificError => PubAckReason::ImplementationSpecificError,
            PubRecReason::NotAuthorized => PubAckReason::NotAuthorized,
            PubRecReason::TopicNameInvalid => PubAckReason::TopicNameInvalid,
            PubRecReason::PacketIdentifierInUse => PubAckReason::PacketIdentifierInUse,
            PubRecReason::QuotaExceeded => PubAckReason::QuotaExceeded,
            PubRecReason::PayloadFormatInvalid => PubAckReason::PayloadFormatInvalid,
        };
        match reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => {
                self.received.insert(id, (waiter, reason));
                Some(())
            }
            // Nothing more comes for it, and rumqttc counts it as in flight for ever.
            refused => {
                _ = waiter.answer.send(refused);
                None
            }
        }
    }

    /// QoS 2, last answer.
    fn complete(&mut self, id: u16, reason: PubCompReason) -> Option<()> {
        let (waiter, received) = self.received.remove(&id)?;
        // Otherwise the broker no longer knows the id, and rumqttc counts it as in flight for ever.
        (reason == PubCompReason::Success).then_some(())?;
        _ = waiter.answer.send(received);
        Some(())
    }
}
