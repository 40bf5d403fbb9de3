//! Events as an outbox would hold them.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use crate::model::{Attempt, Envelope, PARTITIONS};

/// All of them are of one database.
const DATABASE: uuid::Uuid = uuid::Uuid::from_u128(0x0d9f_d7d6_2bc8_4f2c_93a6_5f1f_0c4c_8d55);

/// Events with these keys, in their order, numbered in their data.
pub fn events(topic: &str, keys: &[Option<&str>]) -> Vec<Envelope> {
    static NEXT: AtomicI64 = AtomicI64::new(1);
    let numbers = 1_i64..;
    let event = |(number, key): (i64, &Option<&str>)| Envelope {
        // As in an outbox: never used twice.
        outbox_id: NEXT.fetch_add(1, Ordering::Relaxed),
        id: Attempt::new().event_id(0),
        topic: topic.to_owned(),
        name: "conformance.case.v1".to_owned(),
        partition_key: key.map(str::to_owned),
        partition: partition(*key),
        data: format!(r#"{{"number":{number},"text":"ü \" \\ \u0000"}}"#).into_bytes(),
        headers: BTreeMap::from([("tenant".to_owned(), "blue, or \"green\"".to_owned())]),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        staged_at: Duration::from_millis(1_764_036_060_500),
        attempts: 0,
        source: "/conformance".into(),
        database: DATABASE,
    };
    numbers.zip(keys).map(event).collect()
}

fn partition(key: Option<&str>) -> u16 {
    key.map_or(0, |key| u16::from(key.bytes().fold(0, u8::wrapping_add)))
        % PARTITIONS.unsigned_abs()
}
