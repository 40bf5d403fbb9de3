//! Kafka, through [`rdkafka`]. The application makes the [`ClientConfig`](rdkafka::ClientConfig), with TLS, authentication and tuning; features of
//! `rdkafka` such as `ssl` or `zstd` are switched on in the application's own dependency on it.
//!
//! | sink | a repeat after a crash | costs |
//! |---|---|---|
//! | [`Kafka`] | may be in the topic twice, with the same `ce_id` | one producer |
//! | [`Transactional`] | is seen once by a `read_committed` consumer | one producer for each virtual partition |
//!
//! A record holds the event as [CloudEvents in binary mode](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md):
//! the attributes are headers `ce_…`, the content type is the header `content-type`, the event's own headers have their own names.
//! The record's key is the partition key.

use std::borrow::Cow;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::Delivery;

mod client;
mod config;
mod idempotent;
mod progress;
mod round;
mod seat;
mod slot;
mod transaction;
mod transactional;

pub use self::{idempotent::Kafka, transactional::Transactional};

/// Why a sink could not be made from a configuration. It names the setting and never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no Kafka producer can be made of this configuration: {0}")]
pub struct Misconfigured(Cow<'static, str>);

impl From<KafkaError> for Misconfigured {
    fn from(error: KafkaError) -> Self {
        match error {
            // Its own text quotes the value, which may be a password.
            KafkaError::ClientConfig(_, _, key, _) => {
                Self(format!("`{key}` is unknown or its value is not allowed").into())
            }
            KafkaError::ClientCreation(reason) => Self(reason.into()),
            other => Self(reason(&other)),
        }
    }
}

/// Whether the error says of one record, or of its topic, that it is certainly not stored, and others may be.
fn refusal(error: &KafkaError) -> Option<Delivery> {
    match error {
        KafkaError::Nul(_) => Some(Delivery::refused_for_good(
            "the topic has a NUL in its name",
        )),
        error => error.rdkafka_error_code().and_then(refusal_by),
    }
}

fn refusal_by(code: Code) -> Option<Delivery> {
    match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidArgument => {
            Some(Delivery::refused_for_good(code.to_string()))
        }
        Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::TopicAuthorizationFailed
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::PolicyViolation => Some(Delivery::rejected(code.to_string())),
        _ => None,
    }
}

/// An error without what the server or the configuration put into its text.
fn reason(error: &KafkaError) -> Cow<'static, str> {
    error
        .rdkafka_error_code()
        .map_or("the client gave an error".into(), |code| {
            code.to_string().into()
        })
}
