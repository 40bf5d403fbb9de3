//! Nats: to be written.
