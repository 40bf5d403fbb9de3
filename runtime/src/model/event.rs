//! Events: what a handler returns to be published after its commit.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::json;
use crate::error::{Error, ErrorKind};

/// Extra headers of an event, by name.
pub type Headers = BTreeMap<String, String>;

/// Something that happened, to be published after the commit of the call it happened in.
///
/// ```
/// use effectively::Event;
/// use serde::Serialize;
///
/// #[derive(Serialize, Event)]
/// #[event(topic = "orders", name = "order.placed.v1", key = "{order_id}")]
/// struct OrderPlaced {
///     order_id: i64,
///     amount: i64,
/// }
///
/// let event = OrderPlaced { order_id: 7, amount: 995 };
/// assert_eq!(event.partition_key().as_deref(), Some("7"));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event",
    note = "derive `serde::Serialize` and `effectively::Event`: `#[event(topic = \"orders\", name = \"order.placed.v1\", key = \"{{order_id}}\")]`"
)]
pub trait Event: Serialize {
    /// Where it is published: the relay routes by it.
    const TOPIC: &'static str;
    /// Its type and version, for example `order.placed.v1` (the `type` of CloudEvents 1.0).
    const NAME: &'static str;

    /// Events with the same partition key are published in the order of their outbox ids. `None`: no order is asked for.
    fn partition_key(&self) -> Option<Cow<'_, str>>;
}

/// One event, ready to become a row of the outbox.
#[derive(Debug, Clone)]
pub struct Staged {
    pub(crate) topic: Cow<'static, str>,
    pub(crate) name: Cow<'static, str>,
    pub(crate) partition_key: Option<String>,
    pub(crate) data: Vec<u8>,
    pub(crate) headers: Headers,
    /// How long after the commit it may be published, by the database's clock.
    pub(crate) delay: Duration,
}

impl Staged {
    /// # Errors
    /// [`ErrorKind::Encode`] when the event cannot be written as JSON, which has no `NaN` and no infinity.
    pub(crate) fn new<E: Event>(event: &E) -> Result<Self, Error> {
        let data = json::write(event)
            .map_err(|source| Error::caused_by(ErrorKind::Encode("an event"), source))?;
        let partition_key = event.partition_key().map(Cow::into_owned);
        // Postgres stores no NUL in text. Refused here, so that all databases agree.
        if partition_key
            .as_deref()
            .is_some_and(|key| key.contains('\0'))
        {
            return Err(ErrorKind::Encode("an event's partition key").into());
        }
        Ok(Self {
            topic: E::TOPIC.into(),
            name: E::NAME.into(),
            partition_key,
            data,
            headers: Headers::new(),
            delay: Duration::ZERO,
        })
    }

    /// The delay in milliseconds.
    pub(crate) fn delay_ms(&self) -> i64 {
        i64::try_from(self.delay.as_millis()).unwrap_or(i64::MAX)
    }

    /// The virtual partition: a relay that holds it publishes its events in order. An event without a key spreads by its id.
    /// A delayed event waits in partition `-1 - p` until it is due.
    pub(crate) fn partition(&self, id: uuid::Uuid) -> i16 {
        let digest = match &self.partition_key {
            Some(key) => Sha256::digest(key.as_bytes()),
            None => Sha256::digest(id.as_bytes()),
        };
        let partition = i16::from(digest[0]) % PARTITIONS;
        if self.delay_ms() > 0 {
            -1 - partition
        } else {
            partition
        }
    }
}

/// How many virtual partitions there are. Fixed: another number would move keys between relays and break their order.
pub(crate) const PARTITIONS: i16 = 64;
