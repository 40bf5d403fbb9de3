//! An event as a message of AMQP 0-9-1.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::model::{Envelope, delivery::Delivery, envelope::CONTENT_TYPE};

pub(crate) fn properties(event: &Envelope, frame_max: usize) -> Result<BasicProperties, Delivery> {
    const PERSISTENT: u8 = 2;
    // More than everything else in the frame.
    let mut size = 1024;
    let mut headers = FieldTable::default();
    let mut add = |name: &str, value: &str| {
        size += name.len() + value.len() + 6;
        headers.insert(short(name)?, AMQPValue::LongString(value.into()));
        Ok(())
    };
    for (name, value) in &event.headers {
        add(name, value)?;
    }
    for (name, value) in event.attributes() {
        add(&format!("cloudEvents:{name}"), &value)?;
    }
    // Would end the connection, again and again.
    if size > frame_max {
        return Err(Delivery::refused_for_good("its headers exceed a frame"));
    }
    Ok(BasicProperties::default()
        .with_message_id(short(&event.id.to_string())?)
        .with_type(short(&event.name)?)
        .with_content_type(short(CONTENT_TYPE)?)
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(event.staged_at.as_secs())
        .with_headers(headers))
}

pub(crate) fn short(text: &str) -> Result<ShortString, Delivery> {
    let too_long = "its topic, type or the name of a header exceeds 255 bytes";
    ShortString::try_new(text).map_err(|_| Delivery::refused_for_good(too_long))
}
