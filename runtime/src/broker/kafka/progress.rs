//! The progress record: which events of the outbox the last transaction of a virtual partition has published.
//!
//! It is the metadata text of a committed offset, because Kafka commits offsets in the transaction and a producer can send them
//! without being a consumer. A broker takes 4,096 bytes of it, so that a long list is spread over several groups.

use std::{collections::HashSet, time::Duration};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata},
    error::{KafkaError, KafkaResult},
};

/// A broker's `offset.metadata.max.bytes`, less the beginning of the text.
const LONGEST: usize = 4_096 - 24;
const ANSWER: Duration = Duration::from_secs(10);

/// Where the records of one virtual partition are.
pub(crate) struct Progress {
    /// The application's configuration, for connection and authentication.
    pub(crate) config: ClientConfig,
    pub(crate) group: String,
    pub(crate) topic: String,
}

impl Progress {
    /// What the last transaction has published. Fails while a transaction of the partition is still open.
    pub(crate) fn read(&self) -> KafkaResult<HashSet<i64>> {
        let mut ids = HashSet::new();
        let (mut slot, mut slots) = (0, 1);
        while slot < slots {
            let mut asked = TopicPartitionList::new();
            asked.add_partition(&self.topic, 0);
            let found = self.consumer(slot)?.committed_offsets(asked, ANSWER)?;
            for element in found.elements() {
                element.error()?;
                // A later slot may be of an older transaction. That does no harm: it is published all the same.
                slots = decode(element.metadata(), &mut ids)
                    .unwrap_or(slots)
                    .max(slots);
            }
            slot += 1;
        }
        Ok(ids)
    }

    /// The record as offsets and the groups that they are of.
    pub(crate) fn write(
        &self,
        ids: &[i64],
    ) -> KafkaResult<Vec<(TopicPartitionList, ConsumerGroupMetadata)>> {
        let mut records = Vec::new();
        for (slot, text) in encode(ids).into_iter().enumerate() {
            let mut offsets = TopicPartitionList::new();
            let mut element = offsets.add_partition(&self.topic, 0);
            // Any number does: no one reads from it.
            element.set_offset(Offset::Offset(ids.len().try_into().unwrap_or(0)))?;
            element.set_metadata(text);
            let group = self
                .consumer(slot)?
                .group_metadata()
                .ok_or(KafkaError::Canceled)?;
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

/// `1 <slots>` and the differences of the sorted ids, hexadecimal. Each text stands for itself.
fn encode(ids: &[i64]) -> Vec<String> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    let (mut texts, mut before) = (vec![String::new()], 0);
    for id in ids {
        let mut next = format!(" {:x}", id.wrapping_sub(before));
        if texts
            .last()
            .is_some_and(|text| text.len() + next.len() > LONGEST)
        {
            texts.push(String::new());
            next = format!(" {id:x}");
        }
        if let Some(text) = texts.last_mut() {
            text.push_str(&next);
        }
        before = id;
    }
    let slots = texts.len();
    texts
        .into_iter()
        .map(|text| format!("1 {slots}{text}"))
        .collect()
}

/// Adds the ids and gives the number of slots. `None`: no record, or one of a later version.
fn decode(text: &str, ids: &mut HashSet<i64>) -> Option<usize> {
    let mut words = text.split(' ');
    if words.next() != Some("1") {
        return None;
    }
    let slots = words.next()?.parse().ok()?;
    let mut before = 0_i64;
    for word in words {
        before = before.wrapping_add(u64::from_str_radix(word, 16).ok()?.cast_signed());
        ids.insert(before);
    }
    Some(slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_each_text_is_short() {
        for ids in [
            vec![],
            vec![7],
            vec![9, 3, i64::MAX, -4],
            (0..3_000).map(|id| id * 1_000_000_007).collect(),
        ] {
            let mut read = HashSet::new();
            let texts = encode(&ids);
            for text in &texts {
                assert!(text.len() <= 4_096);
                assert_eq!(decode(text, &mut read), Some(texts.len()));
            }
            assert_eq!(read, ids.into_iter().collect());
        }
    }

    #[test]
    fn what_is_no_record_is_empty() {
        let mut ids = HashSet::new();
        for text in ["", "2 1 a", "1", "1 x"] {
            assert_eq!(decode(text, &mut ids), None);
        }
        assert!(ids.is_empty());
    }
}
