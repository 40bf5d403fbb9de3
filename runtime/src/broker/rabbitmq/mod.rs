//! Messages of AMQP 0-9-1 and their confirms.

pub(crate) mod confirms;
pub(crate) mod message;
