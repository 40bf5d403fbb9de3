//! The real program on real databases.

// A test that cannot go on says why and stops.
#![allow(clippy::expect_used)]

mod kit;

#[cfg(any(
    feature = "kafka",
    feature = "mqtt",
    feature = "nats",
    feature = "rabbitmq",
    feature = "redis",
    feature = "sqs",
    feature = "webhook"
))]
mod brokers;
mod configuration;
mod dead_letters;
mod doctor;
mod keys;
mod purge;
mod relay;
mod status;
mod usage;
