//! The sink of NATS JetStream.

use std::{borrow::Cow, error::Error, fmt, fmt::Write};

use async_nats::{
    Client, HeaderMap, HeaderName, HeaderValue, Subject,
    connection::State,
    header::NATS_MESSAGE_ID,
    jetstream::{
        self, ErrorCode,
        context::{
            PublishAckFuture, PublishError, PublishErrorKind as Kind, traits::TimeoutProvider,
        },
        message::PublishMessage,
    },
};
use tokio::time::{Instant, timeout_at};

use super::{CONTENT_TYPE, Delivery, Sink};
use crate::model::{Envelope, limits::LONGEST_TIMEOUT};

/// Publishes to the streams of NATS JetStream. The event's topic is the subject.
///
/// ```no_run
/// use effectively::sink::nats::Nats;
///
/// # async fn open() -> Result<(), async_nats::Error> {
/// let client = async_nats::connect("nats://localhost").await?;
/// let sink = Nats::new(async_nats::jetstream::new(client));
/// # drop(sink);
/// # Ok(())
/// # }
/// ```
///
/// # What it promises
/// * Published means that a stream has the event: its acknowledgement (PubAck) has come. Not the subject's plain subscribers,
///   who acknowledge nothing, and not a stream with `no_ack`: its events stay unavailable for ever.
/// * A repeat within the stream's duplicate window (2 minutes, unless it says otherwise) is stored once, because the event's id
///   is its `Nats-Msg-Id`. After the window it is stored again, with the same `ce-id`: consumers look for it.
/// * Each `publish` ends within the timeout of the context, 5 seconds unless it says otherwise
///   ([`ContextBuilder::timeout`](jetstream::ContextBuilder::timeout)). While the client is reconnecting nothing is sent.
///
/// A server writes to its disk only every two minutes, unless its `sync_interval` says otherwise (`always`): the loss of power
/// on all replicas loses what they acknowledged.
///
/// # On the wire
/// Binary mode of the [CloudEvents binding](https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md):
/// the data is the body, attributes are headers `ce-…` with percent-encoded values. Headers of the event have their own names
/// and values; NATS trims white space around a value. Names with `Nats-` are orders to the server, for example `Nats-TTL`.
///
/// # What is refused
/// * No stream for the subject, a full stream: tried again, an operator may help.
/// * For good: more than the server's `max_payload` or the stream's `max_msg_size`, a header that has a line break or a name
///   that NATS does not allow, a topic that is no subject.
pub struct Nats {
    jetstream: jetstream::Context,
    client: Client,
    prefix: Option<String>,
}

impl Nats {
    /// Publishes through this context. Credentials, TLS and reconnecting are options of its client.
    pub fn new(jetstream: jetstream::Context) -> Self {
        Self {
            client: jetstream.client(),
            jetstream,
            prefix: None,
        }
    }

    /// Puts this and a dot before each topic: with the prefix `shop`, the topic `orders` has the subject `shop.orders`.
    ///
    /// ```no_run
    /// # fn show(jetstream: async_nats::jetstream::Context) {
    /// use effectively::sink::nats::Nats;
    ///
    /// let sink = Nats::new(jetstream).prefix("shop");
    /// # drop(sink);
    /// # }
    /// ```
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    async fn send(&self, event: &Envelope, end: Instant) -> Result<PublishAckFuture, Delivery> {
        let subject = self.subject(&event.topic)?;
        let message = PublishMessage::build()
            .payload(event.data.clone().into())
            .headers(headers(event)?);
        // A client without a connection keeps what it is given and sends it whenever it has one again.
        if self.client.connection_state() != State::Connected {
            return Err(Delivery::unavailable("there is no connection to NATS"));
        }
        match timeout_at(end, self.jetstream.send_publish(subject, message)).await {
            Ok(Ok(ack)) => Ok(ack),
            Ok(Err(error)) => Err(refusal(&error)),
            Err(_) => Err(no_answer()),
        }
    }

    fn subject(&self, topic: &str) -> Result<Subject, Delivery> {
        let subject = match &self.prefix {
            Some(prefix) => format!("{prefix}.{topic}"),
            None => topic.to_owned(),
        };
        // A server would take a wildcard as if it were a name, and `$` begins the subjects of its own.
        let is_pattern = subject.split('.').any(|token| matches!(token, "*" | ">"));
        match Subject::validated(subject) {
            Ok(subject) if !is_pattern && !subject.starts_with('$') => Ok(subject),
            _ => Err(Delivery::refused_for_good(
                "the topic is not a subject of NATS",
            )),
        }
    }
}

impl Sink for Nats {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        // The context's own timeout is anybody's number.
        let end = Instant::now() + self.jetstream.timeout().min(LONGEST_TIMEOUT);
        let mut sent = Vec::with_capacity(batch.len());
        for event in batch {
            sent.push(self.send(event, end).await);
        }
        let mut answers = Vec::with_capacity(batch.len());
        for ack in sent {
            answers.push(match ack {
                // After the end it takes what has already come.
                Ok(ack) => match timeout_at(end, ack).await {
                    // Or a duplicate: then the stream has had it before.
                    Ok(Ok(_)) => Delivery::Published,
                    Ok(Err(error)) => refusal(&error),
                    Err(_) => no_answer(),
                },
                Err(delivery) => delivery,
            });
        }
        answers
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

fn headers(event: &Envelope) -> Result<HeaderMap, Delivery> {
    let mut headers = HeaderMap::new();
    // What must be right comes last: it replaces a header of the event with the same name.
    for (name, value) in &event.headers {
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
        else {
            return Err(Delivery::refused_for_good(
                "a header of the event has a name or a value that NATS does not allow",
            ));
        };
        headers.insert(name, value);
    }
    for (name, value) in event.attributes() {
        headers.insert(format!("ce-{name}"), &*percent_encoded(&value));
    }
    headers.insert("ce-datacontenttype", CONTENT_TYPE);
    headers.insert("content-type", CONTENT_TYPE);
    headers.insert(NATS_MESSAGE_ID, event.id.to_string());
    Ok(headers)
}

/// As the binding asks for: a partition key may hold anything, a header only visible ASCII.
fn percent_encoded(value: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%');
    if value.bytes().all(plain) {
        return value.into();
    }
    let mut encoded = String::with_capacity(value.len() * 3);
    for byte in value.bytes() {
        if plain(byte) {
            encoded.push(byte.into());
        } else {
            // A String takes everything.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded.into()
}

fn no_answer() -> Delivery {
    Delivery::unavailable("JetStream did not answer in time")
}

fn refusal(error: &PublishError) -> Delivery {
    match error.kind() {
        Kind::StreamNotFound => Delivery::rejected("no stream takes the subject"),
        Kind::MaxPayloadExceeded => {
            Delivery::refused_for_good("it is larger than the server's max_payload")
        }
        Kind::WrongLastMessageId | Kind::WrongLastSequence => {
            Delivery::rejected("the stream is not where a header of the event expects it")
        }
        Kind::TimedOut => no_answer(),
        Kind::BrokenPipe | Kind::MaxAckPending => {
            Delivery::unavailable("the client of NATS sends nothing at present")
        }
        Kind::Other => match error.source().and_then(|source| source.downcast_ref()) {
            Some(error) => refusal_of_jetstream(error),
            // Something else than a stream has answered, or the client is closed.
            None => Delivery::unavailable("there was no answer from JetStream"),
        },
    }
}

/// The server's text stays out: it may quote what it was sent.
fn refusal_of_jetstream(error: &jetstream::Error) -> Delivery {
    let ErrorCode(number) = error.error_code();
    let reason = format!("JetStream answered with its error {number}");
    match error.error_code() {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            Delivery::refused_for_good(reason)
        }
        // One stream cannot store, for example because it is full and discards what is new.
        ErrorCode::STREAM_STORE_FAILED => Delivery::rejected(reason),
        // The stream is at the first copy still, or has too much to do.
        ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT | ErrorCode::STREAM_TOO_MANY_REQUESTS => {
            Delivery::unavailable(reason)
        }
        // Resources and leaders of the whole server.
        _ if error.code() >= 500 => Delivery::unavailable(reason),
        _ => Delivery::rejected(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_percent_encoded_as_the_binding_says() {
        assert_eq!(percent_encoded("/shop/7:a~b"), "/shop/7:a~b");
        assert_eq!(percent_encoded("a\r\nb \"%"), "a%0D%0Ab%20%22%25");
        assert_eq!(
            percent_encoded("Euro € 😀"),
            "Euro%20%E2%82%AC%20%F0%9F%98%80"
        );
    }
}
