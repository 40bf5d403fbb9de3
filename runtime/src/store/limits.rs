//! What a database takes in one message. Larger things are split, and what cannot be split is refused before it is sent: a server
//! ends the connection over it, which would look like a failure that passes.

use super::{Completion, headers_json};
use crate::{
    error::{Error, ErrorKind},
    model::Staged,
};

/// The most that is sent at once where the database takes more.
const CHUNK: usize = 16 * 1024 * 1024;
/// What a row costs beside its values: its part of the statement's text, its numbers, the trace context. Counted generously.
const ROW: usize = 512;
/// What is in a message beside the rows.
const HEAD: usize = 4096;

/// What one database takes, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of one message.
    pub(super) message: usize,
    /// Of a topic, a name, a partition key.
    pub(super) text: usize,
    /// Whether all events of a call and its outcome are in one message.
    pub(super) all_at_once: bool,
}

impl Limits {
    /// The largest outcome.
    pub(crate) fn outcome(&self) -> usize {
        self.message.saturating_sub(HEAD)
    }

    /// # Errors
    /// [`ErrorKind::EventTooLarge`] for what can never be stored.
    pub(crate) fn check(&self, outcome: &[u8], events: &[Staged]) -> Result<(), Error> {
        let refuse = |bytes, limit| Err(ErrorKind::EventTooLarge { bytes, limit }.into());
        for event in events {
            let key = event.partition_key.as_deref().unwrap_or_default();
            let longest = key.len().max(event.topic.len()).max(event.name.len());
            if longest > self.text {
                return refuse(longest, self.text);
            }
            if row_bytes(event) > self.outcome() {
                return refuse(row_bytes(event), self.outcome());
            }
        }
        let all = outcome.len() + events.iter().map(row_bytes).sum::<usize>();
        if self.all_at_once && !events.is_empty() && all > self.outcome() {
            return refuse(all, self.outcome());
        }
        Ok(())
    }
}

impl Completion<'_> {
    /// Whether outcome and events are small enough for one message as hex text, which doubles them.
    pub(crate) fn fits_as_text(&self) -> bool {
        let outcome = self.claim.map_or(0, |(_, outcome)| outcome.len());
        let all = outcome + self.events.iter().map(row_bytes).sum::<usize>();
        all.saturating_mul(2) <= self.limits.outcome().min(CHUNK)
    }

    /// The events in messages of at most so many rows, and so many bytes where a single event is not larger.
    #[cfg(any(feature = "mysql", feature = "sqlite"))]
    pub(super) fn chunks(&self, rows: usize) -> impl Iterator<Item = &[Staged]> {
        chunks(self.events, rows, self.limits.outcome().min(CHUNK))
    }
}

#[cfg(any(feature = "mysql", feature = "sqlite"))]
fn chunks(mut events: &[Staged], rows: usize, bytes: usize) -> impl Iterator<Item = &[Staged]> {
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fitting = events.iter().take(rows).take_while(|event| {
            sum += row_bytes(event);
            sum <= bytes
        });
        let (chunk, rest) = events.split_at(fitting.count().max(1).min(events.len()));
        events = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn row_bytes(event: &Staged) -> usize {
    let key = event.partition_key.as_deref().map_or(0, str::len);
    let headers = headers_json(&event.headers).map_or(0, |json| json.len());
    ROW + event.topic.len() + event.name.len() + key + event.data.len() + headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bytes: usize) -> Staged {
        Staged {
            topic: "t".into(),
            name: "n".into(),
            partition_key: Some("k".into()),
            data: vec![0; bytes],
            headers: Default::default(),
            delay: Default::default(),
        }
    }

    const WIDE: Limits = Limits {
        message: HEAD + 10_000,
        text: usize::MAX,
        all_at_once: false,
    };

    fn refused(limits: Limits, events: &[Staged]) -> Option<ErrorKind> {
        let checked = limits.check(&[0; 100], events);
        checked.err().map(|error| error.kind().clone())
    }

    const AT_ONCE: Limits = Limits {
        all_at_once: true,
        ..WIDE
    };

    #[test]
    fn only_what_can_never_fit_is_refused() {
        let fits = 10_000 - ROW - 3;
        assert_eq!(refused(WIDE, &[event(fits), event(fits)]), None);
        let too_large = |bytes, limit| Some(ErrorKind::EventTooLarge { bytes, limit });
        let larger = [event(1), event(fits + 1)];
        assert_eq!(refused(WIDE, &larger), too_large(10_001, 10_000));
        let together = [event(fits), event(1)];
        assert_eq!(
            refused(AT_ONCE, &together),
            too_large(10_100 + ROW + 4, 10_000)
        );
        assert_eq!(refused(AT_ONCE, &[event(1)]), None);
        let mut long = event(1);
        long.partition_key = Some("k".repeat(21));
        assert_eq!(
            refused(Limits { text: 20, ..WIDE }, &[event(1), long]),
            too_large(21, 20)
        );
    }

    #[cfg(any(feature = "mysql", feature = "sqlite"))]
    #[test]
    fn chunks_hold_all_events_in_their_order_and_no_more_than_they_may() {
        let events: Vec<_> = [10, 5000, 10, 10, 900, 900, 900, 10].map(event).into();
        let sizes = |rows, bytes| -> Vec<Vec<usize>> {
            let of = |chunk: &[Staged]| chunk.iter().map(|event| event.data.len()).collect();
            chunks(&events, rows, bytes).map(of).collect()
        };
        assert_eq!(
            sizes(8, 3000),
            [
                vec![10],
                vec![5000],
                vec![10, 10, 900],
                vec![900, 900],
                vec![10]
            ]
        );
        assert_eq!(sizes(3, usize::MAX).len(), 3);
        assert_eq!(chunks(&[], 3, 10).count(), 0);
    }
}
