//! The sink of Kafka against the conformance suite.
