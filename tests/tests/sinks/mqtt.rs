//! The sink of Mqtt against the conformance suite.
