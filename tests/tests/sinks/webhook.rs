//! The sink of Webhook against the conformance suite.
