//! Webhook: to be written.
