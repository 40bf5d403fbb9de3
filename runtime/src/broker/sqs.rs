//! What one event looks like as a message of SQS.

use aws_sdk_sqs::types::{
    MessageAttributeValue, SendMessageBatchRequestEntry as Entry,
    builders::SendMessageBatchRequestEntryBuilder as EntryBuilder,
};
use sha2::{Digest, Sha256};

use crate::model::{Envelope, delivery::Delivery, envelope::CONTENT_TYPE};

/// The message, and how many bytes it counts for.
pub(crate) fn message(
    event: &Envelope,
    fifo: bool,
    at_most: usize,
) -> Result<(EntryBuilder, usize), Delivery> {
    let body = body(event).ok_or_else(|| Delivery::refused_for_good("its data is no text"))?;
    if event.headers.len() > 10 || !event.headers.iter().all(is_attribute) {
        return Err(Delivery::refused_for_good(
            "SQS takes no such headers as message attributes",
        ));
    }
    let mut bytes = body.len();
    let mut entry = Entry::builder().message_body(body);
    for (name, value) in &event.headers {
        bytes += name.len() + "String".len() + value.len();
        let attribute = MessageAttributeValue::builder()
            .data_type("String")
            .string_value(value);
        let attribute = attribute
            .build()
            .map_err(|_| Delivery::refused_for_good("no attribute"))?;
        entry = entry.message_attributes(name, attribute);
    }
    if bytes > at_most {
        return Err(Delivery::refused_for_good(format!(
            "over {at_most} bytes as a message of SQS"
        )));
    }
    if fifo {
        let id = event.id.to_string();
        let group = event
            .partition_key
            .as_ref()
            .map_or_else(|| id.clone(), |key| group(key));
        entry = entry.message_deduplication_id(id).message_group_id(group);
    }
    Ok((entry, bytes))
}

/// The JSON format of CloudEvents. The data is put in as it is.
fn body(event: &Envelope) -> Option<String> {
    let data = str::from_utf8(&event.data).ok()?;
    let mut body = "{".to_owned();
    for (name, value) in event.attributes() {
        body += &format!("\"{name}\":{},", serde_json::Value::from(value));
    }
    body += &format!("\"datacontenttype\":\"{CONTENT_TYPE}\",\"data\":{data}}}");
    // SQS refuses these two. They can only stand inside strings.
    Some(
        body.replace('\u{fffe}', "\\ufffe")
            .replace('\u{ffff}', "\\uffff"),
    )
}

/// Whether SQS takes this header as a message attribute.
fn is_attribute((name, value): (&String, &String)) -> bool {
    let letter = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    let reserved = ["aws.", "amazon."];
    let lower = name.to_ascii_lowercase();
    let dots = name.starts_with('.') || name.ends_with('.') || name.contains("..");
    let name_is_fine = (1..=256).contains(&name.len()) && name.chars().all(letter) && !dots;
    let text = |letter| matches!(letter, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    name_is_fine
        && !reserved.iter().any(|prefix| lower.starts_with(prefix))
        && !value.is_empty()
        && value.chars().all(text)
}

/// The key itself, if SQS takes it.
fn group(key: &str) -> String {
    let plain = (1..=128).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    match plain {
        true => key.to_owned(),
        false => {
            let digest = Sha256::digest(key);
            digest.iter().map(|byte| format!("{byte:02x}")).collect()
        }
    }
}
