//! MQTT 5, by the crate [`rumqttc`]. Feature `mqtt`.

use std::{fmt, sync::Arc, time::Duration};

use rumqttc::v5::{
    MqttOptions,
    mqttbytes::{
        QoS,
        v5::{PubAckReason, Publish, PublishProperties},
    },
};
use tokio::{sync::Mutex, time::timeout};

use super::{CONTENT_TYPE, Delivery, Sink};
use crate::{
    broker::mqtt::Session,
    model::{Envelope, limits::LONGEST_TIMEOUT},
};

/// Publishes each event to its topic with QoS 1, many at once, and waits for the broker's PUBACK of each.
///
/// ```
/// use effectively::sink::mqtt::Mqtt;
/// use rumqttc::v5::MqttOptions;
///
/// // Each process needs a client id of its own: a broker ends the connection of the one before it with the same.
/// let mut options = MqttOptions::new("orders-relay-1", "localhost", 1883);
/// options.set_credentials("orders", "secret");
/// let sink = Mqtt::new(options).prefix("shop/");
/// ```
///
/// # What a consumer gets
/// The data as payload, its content type, and as user properties the attributes of CloudEvents under
/// their own names (the MQTT binding has no prefix) and the event's own headers. A header that is called like an attribute has
/// `header_` put before its name. Delivery is at least once: look for repeats by `id`.
///
/// # What MQTT promises
/// PUBACK means that the broker has taken the message over. **It throws a message away when no session is
/// subscribed**, see [`require_subscribers`](Self::require_subscribers); a subscriber that may be away needs a session that does
/// not expire. Whether the broker keeps its messages over a crash is its own matter: Mosquitto has `persistence`, and writes to
/// its file now and then only.
///
/// A text with control characters, and one over 65,535 bytes, ends the connection or breaks the packet: events with such in a
/// topic, key, header or the like are refused for good.
pub struct Mqtt {
    options: MqttOptions,
    qos: QoS,
    prefix: String,
    require_subscribers: bool,
    max_bytes: usize,
    timeout: Duration,
    session: Mutex<Option<Arc<Session>>>,
}

impl Mqtt {
    /// A sink with these options. It connects when it first publishes, and again after any error; each time with a clean start,
    /// so that nothing of the connection before is sent or confirmed once more.
    pub fn new(mut options: MqttOptions) -> Self {
        options.set_clean_start(true);
        Self {
            options,
            qos: QoS::AtLeastOnce,
            prefix: String::new(),
            require_subscribers: false,
            max_bytes: usize::MAX,
            timeout: Duration::from_secs(10),
            session: Mutex::default(),
        }
    }

    /// Publishes with QoS 2: no repeats between sink and broker while one connection lasts. After a lost one there are some as
    /// with QoS 1, which is the default.
    pub fn qos2(mut self) -> Self {
        self.qos = QoS::ExactlyOnce;
        self
    }

    /// Puts this before the event's topic. Default: nothing.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Rejects an event that the broker had no subscriber for, so that it is tried again. A broker need not say so; Mosquitto
    /// does with QoS 1 and does not with QoS 2. Default: such an event counts as published.
    pub fn require_subscribers(mut self) -> Self {
        self.require_subscribers = true;
        self
    }

    /// The most bytes of data that an event may have; larger ones are refused for good. The sink keeps to the Maximum Packet
    /// Size that the broker tells by itself. Set this for a limit that it does not tell, as Mosquitto's `message_size_limit`:
    /// what is over it ends the connection again and again. Default: no limit.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How long a batch, with connecting, may take, at most a day; what is not confirmed by then counts as unavailable, and the
    /// connection is given up. Default: 10 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(LONGEST_TIMEOUT);
        self
    }

    /// The open session, or a new one. One at a time: two with one client id would end each other.
    async fn session(&self) -> Result<Arc<Session>, Delivery> {
        let mut session = self.session.lock().await;
        if let Some(open) = session.as_ref().filter(|session| session.is_open()) {
            return Ok(open.clone());
        }
        let opened = Arc::new(Session::open(self.options.clone()).await?);
        *session = Some(opened.clone());
        Ok(opened)
    }

    async fn publish_all(
        &self,
        batch: &[Envelope],
        answers: &mut [Delivery],
        used: &mut Option<Arc<Session>>,
    ) {
        let session = match self.session().await {
            Ok(session) => used.insert(session),
            Err(answer) => return answers.fill(answer),
        };
        let mut sent = Vec::with_capacity(batch.len());
        for (event, answer) in batch.iter().zip(answers) {
            match self.message(event, session.max_packet()) {
                Ok(message) => sent.push((session.send(message).await, answer)),
                Err(refused) => *answer = refused,
            }
        }
        for (acknowledged, answer) in sent {
            *answer = match acknowledged.await {
                Ok(reason) => self.answer(reason),
                Err(_) => Delivery::unavailable("the connection to the broker was lost"),
            };
        }
    }

    fn message(&self, event: &Envelope, max_packet: usize) -> Result<Publish, Delivery> {
        let attributes: Vec<_> = event.attributes().collect();
        let is_ours = |name: &str| attributes.iter().any(|(ours, _)| *ours == name);
        let own = event
            .headers
            .iter()
            .map(|(name, value)| match is_ours(name) {
                true => (format!("header_{name}"), value.clone()),
                false => (name.clone(), value.clone()),
            });
        let ours = attributes.iter();
        let ours = ours.map(|(name, value)| ((*name).to_owned(), value.to_string()));
        let properties = PublishProperties {
            content_type: Some(CONTENT_TYPE.to_owned()),
            user_properties: ours.chain(own).collect(),
            ..PublishProperties::default()
        };
        let topic = format!("{}{}", self.prefix, event.topic);
        if topic.is_empty() || topic.contains(['+', '#']) || !is_text(&topic) {
            return Err(Delivery::refused_for_good("no topic of MQTT"));
        }
        let mut texts = properties.user_properties.iter();
        if !texts.all(|(name, value)| is_text(name) && is_text(value)) {
            let reason = "a key, header or other text that MQTT does not take";
            return Err(Delivery::refused_for_good(reason));
        }
        let publish = Publish::new(topic, self.qos, event.data.clone(), Some(properties));
        // The packet id comes later: two bytes, and perhaps one more for the length.
        if event.data.len() > self.max_bytes || publish.size() + 3 > max_packet {
            return Err(Delivery::refused_for_good("larger than the broker takes"));
        }
        Ok(publish)
    }

    fn answer(&self, reason: PubAckReason) -> Delivery {
        match reason {
            PubAckReason::Success => Delivery::Published,
            PubAckReason::NoMatchingSubscribers if self.require_subscribers => {
                Delivery::rejected("the topic has no subscriber")
            }
            PubAckReason::NoMatchingSubscribers => Delivery::Published,
            PubAckReason::QuotaExceeded | PubAckReason::PacketIdentifierInUse => {
                Delivery::unavailable(format!("the broker answered {reason:?}"))
            }
            _ => Delivery::rejected(format!("the broker answered {reason:?}")),
        }
    }
}

/// Whether a broker must take it as a UTF-8 string: it may end the connection for control characters and the like.
fn is_text(text: &str) -> bool {
    let fine = |letter: char| {
        let number = u32::from(letter);
        let nothing = (0xfdd0..=0xfdef).contains(&number) || number & 0xfffe == 0xfffe;
        !letter.is_control() && !nothing
    };
    text.len() <= usize::from(u16::MAX) && text.chars().all(fine)
}

impl Sink for Mqtt {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let late = Delivery::unavailable("the broker did not confirm it in time");
        let (mut answers, mut used) = (vec![late; batch.len()], None);
        let publishing = self.publish_all(batch, &mut answers, &mut used);
        let in_time = timeout(self.timeout, publishing).await.is_ok();
        // A connection that is silent looks like one that is slow.
        if let Some(session) = used.filter(|_| !in_time) {
            session.close();
        }
        answers
    }
}

impl fmt::Debug for Mqtt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the options: they hold the password.
        f.debug_struct("Mqtt")
            .field("qos", &self.qos)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
