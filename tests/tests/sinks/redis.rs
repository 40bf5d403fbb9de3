//! The sink of Redis against the conformance suite.
