//! The sink of RabbitMQ.

use std::{fmt, future::Future, slice, time::Duration};

use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use super::{Boxed, Delivery, Sink};
use crate::{
    broker::rabbitmq::{
        confirms::{NOT_FOUND, Sent, Slot, late, lost, refusal},
        message::{properties, short},
    },
    model::{Envelope, limits::LONGEST_TIMEOUT},
};

/// Publishes to RabbitMQ (AMQP 0-9-1), with publisher confirms. The event's topic is the name of a queue, or with
/// [`exchange`](Self::exchange) the routing key.
///
/// ```
/// use effectively::sink::rabbitmq::RabbitMq;
/// use lapin::ConnectionProperties;
///
/// let properties = ConnectionProperties::default().with_connection_name("orders".into());
/// let sink = RabbitMq::new("amqp://guest:guest@localhost/%2f", properties).exchange("events");
/// ```
///
/// # What it promises
/// * Published means that the broker has routed the event to at least one queue and confirmed it. It outlives a crash of the
///   broker if the queue is durable: a quorum queue also outlives the loss of a node.
/// * RabbitMQ recognises no repeats. A lost confirm leads to a second copy, with the same `message_id`: consumers look for it.
/// * It connects when it has something to publish and has no connection, once in each `publish`. lapin's own recovery
///   (`enable_auto_recover`) has to stay off.
/// * Each `publish` ends within [`timeout`](Self::timeout).
///
/// # On the wire
/// Persistent, with `message_id` (the event's id), `type` (its name), `content_type` and `timestamp` (when it was staged);
/// attributes are headers named `cloudEvents:…`, as in the
/// [AMQP binding](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md) of CloudEvents;
/// headers of the event have their own names.
///
/// # What is refused
/// * No queue takes it, a queue is full and rejects (`x-overflow: reject-publish`), no such exchange, no permission: tried
///   again, an operator may help.
/// * For good: what is larger than the broker's `max_message_size`, headers larger than a frame, a topic, type or name of a
///   header of more than 255 bytes.
///
/// lapin logs a message that no queue took, with its body, at the level `warn` of the target `lapin::returned_messages`.
pub struct RabbitMq {
    connect: Box<dyn Fn() -> Boxed<'static, lapin::Result<Connection>> + Send + Sync>,
    exchange: String,
    timeout: Duration,
    link: Mutex<Link>,
}

#[derive(Default)]
struct Link {
    connection: Option<Connection>,
    idle: Vec<Line>,
}

/// A channel in confirm mode. One batch at a time has it, see [`Sent`].
struct Line {
    channel: Channel,
    frame_max: usize,
}

impl RabbitMq {
    /// Publishes to the broker at this address, for example `amqp://user:password@host:5672/vhost`. `amqps://` needs one of
    /// lapin's TLS features.
    pub fn new(uri: impl Into<String>, properties: ConnectionProperties) -> Self {
        let uri = uri.into();
        Self::connecting_by(move || {
            let (uri, properties) = (uri.clone(), properties.clone());
            async move { Connection::connect(&uri, properties).await }
        })
    }

    /// Publishes through the connections that this function opens: for several hosts, TLS of one's own, passwords that change.
    ///
    /// ```
    /// use effectively::sink::rabbitmq::RabbitMq;
    /// use lapin::{Connection, ConnectionProperties};
    ///
    /// let sink = RabbitMq::connecting_by(|| {
    ///     Connection::connect("amqp://localhost", ConnectionProperties::default())
    /// });
    /// ```
    pub fn connecting_by<C>(connect: impl Fn() -> C + Send + Sync + 'static) -> Self
    where
        C: Future<Output = lapin::Result<Connection>> + Send + 'static,
    {
        Self {
            connect: Box::new(move || Box::pin(connect())),
            exchange: String::new(),
            timeout: Duration::from_secs(10),
            link: Mutex::default(),
        }
    }

    /// Publishes to this exchange, with the topic as the routing key, instead of to the queue that the topic names.
    pub fn exchange(mut self, name: impl Into<String>) -> Self {
        self.exchange = name.into();
        self
    }

    /// How long one batch may take, connecting and confirms included: at most a day. 10 seconds unless it is
    /// set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(LONGEST_TIMEOUT);
        self
    }

    async fn line(&self) -> Result<Line, Delivery> {
        let mut link = self.link.lock().await;
        if let Some(connection) = link.connection.as_ref().map(Connection::status) {
            if connection.blocked() {
                return Err(Delivery::unavailable(
                    "RabbitMQ has an alarm and takes nothing",
                ));
            }
            if !connection.connected() {
                *link = Link::default();
            }
        }
        while let Some(line) = link.idle.pop() {
            if line.channel.status().connected() {
                return Ok(line);
            }
        }
        let connection = match link.connection.take() {
            Some(connection) => connection,
            None => (self.connect)().await.map_err(|error| lost(&error))?,
        };
        let channel = connection.create_channel().await;
        let channel = channel.map_err(|error| lost(&error))?;
        let confirmed = channel.confirm_select(ConfirmSelectOptions::default());
        confirmed.await.map_err(|error| lost(&error))?;
        let frame_max = usize::try_from(connection.configuration().frame_max());
        link.connection = Some(connection);
        Ok(Line {
            channel,
            frame_max: frame_max.unwrap_or(usize::MAX),
        })
    }

    /// Sends all, then waits for the confirms. Also the code with which the broker closed the channel, if it did.
    async fn round(&self, batch: &[Envelope], end: Instant) -> (Vec<Delivery>, Option<u16>) {
        let line = match timeout_at(end, self.line()).await {
            Ok(Ok(line)) => line,
            Ok(Err(delivery)) => return (vec![delivery; batch.len()], None),
            Err(_) => return (vec![late(); batch.len()], None),
        };
        let mut sent = Sent::default();
        for event in batch {
            let slot = timeout_at(end, self.send(&line, event)).await;
            sent.push(event, slot.unwrap_or_else(|_| Slot::Answered(late())));
        }
        let (answers, closed) = sent.settle(end).await;
        self.give_back(line, &answers).await;
        (answers, closed)
    }

    async fn send(&self, line: &Line, event: &Envelope) -> Slot {
        let message = short(&self.exchange).and_then(|exchange| {
            let properties = properties(event, line.frame_max)?;
            Ok((exchange, short(&event.topic)?, properties))
        });
        let (exchange, routing_key, properties) = match message {
            Ok(message) => message,
            Err(delivery) => return Slot::Answered(delivery),
        };
        // Without `mandatory` the broker confirms what it throws away.
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let channel = &line.channel;
        let sent = channel.basic_publish(exchange, routing_key, options, &event.data, properties);
        match sent.await {
            Ok(confirm) => Slot::Waiting(confirm),
            Err(error) => Slot::Heard(Err(error)),
        }
    }

    /// A line on which something is unclear closes. If it is only late, the connection may be dead without knowing it; a
    /// blocked one lives, and another one would be blocked too.
    async fn give_back(&self, line: Line, answers: &[Delivery]) {
        let unclear = |answer: &Delivery| matches!(answer, Delivery::Unavailable(_));
        let mut link = self.link.lock().await;
        if !answers.iter().any(unclear) {
            link.idle.push(line);
        } else if answers.contains(&late()) {
            let connection = link.connection.as_ref().map(Connection::status);
            if !connection.is_some_and(|connection| connection.blocked()) {
                *link = Link::default();
            }
        }
    }
}

impl Sink for RabbitMq {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let end = Instant::now() + self.timeout;
        let (mut answers, closed) = self.round(batch, end).await;
        let Some(code) = closed else {
            return answers;
        };
        for (event, answer) in batch.iter().zip(&mut answers) {
            if !matches!(answer, Delivery::Unavailable(_)) {
                continue;
            }
            // The broker closes the channel because of one event and does not say which: each goes alone. Only a missing
            // exchange is missing for all.
            *answer = if code == NOT_FOUND || batch.len() == 1 {
                refusal(code)
            } else {
                match self.round(slice::from_ref(event), end).await {
                    (_, Some(code)) => refusal(code),
                    (mut alone, None) => alone.pop().unwrap_or_else(late),
                }
            };
        }
        answers
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq")
            .field("exchange", &self.exchange)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
