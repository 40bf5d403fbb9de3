//! Kafka: to be written.
