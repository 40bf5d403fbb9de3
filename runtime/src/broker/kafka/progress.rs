//! The progress record: which events of the outbox the last transaction of a virtual partition has published.
//!
//! It names the database, and each event by its place and its id. A place alone would not do: a new or restored database under the
//! same prefix, or one whose tables were emptied, gives it to another event, which would count as published and be lost. What
//! is not named with all three is published.
//!
//! It is the metadata text of a committed offset, because Kafka commits offsets in the transaction and a producer can send them
//! without being a consumer. A broker takes 4,096 bytes of it, so that a long list is spread over several groups.

use std::{collections::HashSet, time::Duration};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata},
    error::{KafkaError, KafkaResult},
};
use uuid::Uuid;

use crate::model::EventRef;

/// The version of the text. Version 1 named places only, so nothing is known from it.
const VERSION: &str = "2";
/// A broker's `offset.metadata.max.bytes`.
const LONGEST: usize = 4_096;
/// The longest beginning of a text: version, number of slots, database, each followed by a space.
const BEGINNING: usize = 2 + 21 + 33;
const ANSWER: Duration = Duration::from_secs(10);

/// Where the records of one virtual partition are.
pub(crate) struct Progress {
    /// The application's configuration, for connection and authentication.
    pub(crate) config: ClientConfig,
    pub(crate) group: String,
    pub(crate) topic: String,
    /// What the offsets of each slot are sent with. A consumer has to be made for each, so they are kept.
    pub(crate) groups: Vec<ConsumerGroupMetadata>,
}

impl Progress {
    /// What the last transaction has published. Fails while a transaction of the partition is still open.
    pub(crate) fn read(&self) -> KafkaResult<HashSet<EventRef>> {
        let mut events = HashSet::new();
        let (mut slot, mut slots) = (0, 1);
        while slot < slots {
            let mut asked = TopicPartitionList::new();
            asked.add_partition(&self.topic, 0);
            let found = self.consumer(slot)?.committed_offsets(asked, ANSWER)?;
            for element in found.elements() {
                element.error()?;
                // A later slot may be of an older transaction. That does no harm: it is published all the same.
                slots = decode(element.metadata(), &mut events)
                    .unwrap_or(slots)
                    .max(slots);
            }
            slot += 1;
        }
        Ok(events)
    }

    /// The record as offsets and the groups that they are of.
    pub(crate) fn write(
        &mut self,
        events: &[EventRef],
    ) -> KafkaResult<Vec<(TopicPartitionList, &ConsumerGroupMetadata)>> {
        let texts = encode(events);
        for slot in self.groups.len()..texts.len() {
            let group = self.consumer(slot)?.group_metadata();
            self.groups.push(group.ok_or(KafkaError::Canceled)?);
        }
        let mut records = Vec::new();
        for (text, group) in texts.into_iter().zip(&self.groups) {
            let mut offsets = TopicPartitionList::new();
            let mut element = offsets.add_partition(&self.topic, 0);
            // Any number does: no one reads from it.
            element.set_offset(Offset::Offset(events.len().try_into().unwrap_or(0)))?;
            element.set_metadata(text);
            records.push((offsets, group));
        }
        Ok(records)
    }

    /// It joins no group, it only has one's name.
    fn consumer(&self, slot: usize) -> KafkaResult<BaseConsumer> {
        let group = if slot == 0 {
            self.group.clone()
        } else {
            format!("{}.{slot}", self.group)
        };
        let mut config = self.config.clone();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false");
        // Also means that an offset of an open transaction is waited for.
        config.set("isolation.level", "read_committed");
        config.create()
    }
}

/// `2 <slots> <database>` and the events, each as the difference of its place to that of the one before, hexadecimal, and its id.
/// Each text stands for itself.
fn encode(events: &[EventRef]) -> Vec<String> {
    let mut events = events.to_vec();
    events.sort_unstable();
    let mut texts: Vec<(Uuid, String)> = Vec::new();
    let mut before = 0;
    for event in events {
        let named = |before: i64| {
            let step = event.outbox_id.wrapping_sub(before);
            format!(" {step:x}:{}", event.id.simple())
        };
        let mut next = named(before);
        match texts.last_mut() {
            Some((database, text))
                if *database == event.database
                    && BEGINNING + text.len() + next.len() <= LONGEST =>
            {
                text.push_str(&next);
            }
            _ => {
                next = named(0);
                texts.push((event.database, next));
            }
        }
        before = event.outbox_id;
    }
    if texts.is_empty() {
        texts.push((Uuid::nil(), String::new()));
    }
    let slots = texts.len();
    texts
        .into_iter()
        .map(|(database, text)| format!("{VERSION} {slots} {}{text}", database.simple()))
        .collect()
}

/// Adds the events and returns the number of slots. `None`: no record, or one of another version.
fn decode(text: &str, events: &mut HashSet<EventRef>) -> Option<usize> {
    let mut words = text.split(' ');
    if words.next() != Some(VERSION) {
        return None;
    }
    let slots = words.next()?.parse().ok()?;
    let database = Uuid::try_parse(words.next()?).ok()?;
    let mut before = 0_i64;
    for word in words {
        let (step, id) = word.split_once(':')?;
        before = before.wrapping_add(u64::from_str_radix(step, 16).ok()?.cast_signed());
        events.insert(EventRef {
            database,
            outbox_id: before,
            id: Uuid::try_parse(id).ok()?,
        });
    }
    Some(slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(database: u128, outbox_id: i64) -> EventRef {
        EventRef {
            database: Uuid::from_u128(database),
            outbox_id,
            id: Uuid::new_v4(),
        }
    }

    #[test]
    fn what_is_written_is_read_and_each_text_is_short() {
        for events in [
            vec![],
            vec![event(1, 7)],
            vec![event(1, 9), event(2, 3), event(1, i64::MAX), event(2, -4)],
            (0..3_000).map(|id| event(1, id * 1_000_000_007)).collect(),
        ] {
            let mut read = HashSet::new();
            let texts = encode(&events);
            for text in &texts {
                assert!(text.len() <= LONGEST);
                assert_eq!(decode(text, &mut read), Some(texts.len()));
            }
            assert_eq!(read, events.into_iter().collect());
        }
    }

    #[test]
    fn a_record_of_places_alone_and_what_is_no_record_say_nothing() {
        let mut events = HashSet::new();
        for text in ["", "1 1 a", "3 1 a", "2", "2 x", "2 1", "2 1 a", "2 1 0 1"] {
            assert_eq!(decode(text, &mut events), None, "{text}");
        }
        assert!(events.is_empty());
    }
}
