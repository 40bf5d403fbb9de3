//! The sink of Sqs against the conformance suite.
