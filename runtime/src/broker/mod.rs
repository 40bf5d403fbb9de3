//! Brokers from the client's side: what is sent for an event, and what an answer means for it. Sinks are built of it.

#[cfg(feature = "kafka")]
pub(crate) mod kafka;
#[cfg(feature = "mqtt")]
pub(crate) mod mqtt;
#[cfg(feature = "rabbitmq")]
pub(crate) mod rabbitmq;
#[cfg(feature = "sqs")]
pub(crate) mod sqs;
