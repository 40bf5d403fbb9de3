//! The sink of RabbitMq against the conformance suite.
