//! The sink of Nats against the conformance suite.
