//! RabbitMq: to be written.
