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

mod idempotent;
mod transactional;

pub use self::{idempotent::Kafka, transactional::Transactional};
pub use crate::broker::kafka::Misconfigured;
