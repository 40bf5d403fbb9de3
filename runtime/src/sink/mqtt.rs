//! Mqtt: to be written.
