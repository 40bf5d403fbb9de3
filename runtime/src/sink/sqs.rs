//! Sqs: to be written.
