//! Producers of Kafka: their configuration, their topics, their transactions.

use std::borrow::Cow;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::model::delivery::Delivery;

pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod progress;
pub(crate) mod round;
pub(crate) mod seat;
pub(crate) mod slot;
mod transaction;

/// Why a sink could not be made from a configuration. It names the setting and never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no Kafka producer can be made of this configuration: {0}")]
pub struct Misconfigured(pub(crate) Cow<'static, str>);

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
pub(crate) fn refusal(error: &KafkaError) -> Option<Delivery> {
    match error {
        KafkaError::Nul(_) => Some(Delivery::refused_for_good(
            "the topic has a NUL in its name",
        )),
        error => error.rdkafka_error_code().and_then(refusal_by),
    }
}

pub(crate) fn refusal_by(code: Code) -> Option<Delivery> {
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
pub(crate) fn reason(error: &KafkaError) -> Cow<'static, str> {
    error
        .rdkafka_error_code()
        .map_or("the client gave an error".into(), |code| {
            code.to_string().into()
        })
}
