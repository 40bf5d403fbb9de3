//! An event as the outbox holds it and a sink publishes it.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::Headers;

/// An event as the outbox holds it: what a [`Sink`](crate::sink::Sink) publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Envelope {
    /// The place in the outbox. Events of one partition key are published in this order.
    pub outbox_id: i64,
    /// The event's id: made from the attempt and the event's ordinal in it, and never changed by a re-publish.
    pub id: uuid::Uuid,
    /// Where it is published.
    pub topic: String,
    /// Its type, for example `order.placed.v1`.
    pub name: String,
    /// Its partition key.
    pub partition_key: Option<String>,
    /// The virtual partition of the key, 0 to 63. One relay at a time holds it.
    pub partition: u16,
    /// Its body, JSON.
    pub data: Vec<u8>,
    /// Its extra headers.
    pub headers: Headers,
    /// The W3C trace context of the call that emitted it.
    pub traceparent: Option<String>,
    /// When it was staged, by the database's clock: the time since 1970-01-01T00:00:00Z.
    pub staged_at: Duration,
    /// How often a sink has rejected it so far.
    pub attempts: u16,
    /// Who emits it: the `source` of CloudEvents, set by the relay.
    pub source: Arc<str>,
    /// The identity of the database whose outbox holds it. A copy or a restored backup has that of its original.
    pub database: uuid::Uuid,
}

/// Names one event of one outbox, for a sink that keeps a record of what it has published.
///
/// All three belong to it: a database that was restored, or whose tables were emptied, gives the same `outbox_id` to other
/// events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventRef {
    /// [`Envelope::database`].
    pub database: uuid::Uuid,
    /// [`Envelope::outbox_id`].
    pub outbox_id: i64,
    /// [`Envelope::id`].
    pub id: uuid::Uuid,
}

impl From<&Envelope> for EventRef {
    fn from(event: &Envelope) -> Self {
        Self {
            database: event.database,
            outbox_id: event.outbox_id,
            id: event.id,
        }
    }
}

impl Envelope {
    /// The attributes of [CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md), without the
    /// prefix that each protocol gives them (`ce_` on Kafka, `ce-` on HTTP and NATS, …), and the extensions `partitionkey` and
    /// `traceparent`. `datacontenttype` is left to the protocol, whose own content type stands for it.
    ///
    /// ```
    /// # fn show(envelope: &effectively::Envelope) {
    /// for (name, value) in envelope.attributes() {
    ///     println!("ce-{name}: {value}");
    /// }
    /// # }
    /// ```
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, Cow<'_, str>)> {
        [
            ("specversion", Some(Cow::Borrowed("1.0"))),
            ("id", Some(self.id.to_string().into())),
            ("source", Some((&*self.source).into())),
            ("type", Some((&*self.name).into())),
            ("time", Some(rfc3339(self.staged_at).into())),
            (
                "partitionkey",
                self.partition_key.as_deref().map(Cow::Borrowed),
            ),
            (
                "traceparent",
                self.traceparent.as_deref().map(Cow::Borrowed),
            ),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }

    /// What events must share to keep their order: the partition key, or for an event without one its own id.
    pub(crate) fn lane(&self) -> Lane {
        match &self.partition_key {
            Some(key) => Lane::Key(key.clone()),
            None => Lane::Alone(self.outbox_id),
        }
    }
}

/// Events of one lane are published one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Key(String),
    Alone(i64),
}

/// The content type of every event's data.
pub const CONTENT_TYPE: &str = "application/json";

/// RFC 3339 in UTC with milliseconds. The format ends with the year 9999.
fn rfc3339(since_1970: Duration) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since_1970.min(LAST)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_rfc_3339() {
        let text = rfc3339(Duration::from_millis(1_764_036_060_500));
        assert_eq!(text, "2025-11-25T02:01:00.500Z");
        assert_eq!(rfc3339(Duration::MAX), "9999-12-31T23:59:59.000Z");
    }
}
