//! What every web framework shares: the grammar of the `Idempotency-Key` header and problem+json.

pub(crate) mod header;
pub(crate) mod problem;

#[cfg(feature = "axum")]
mod axum;
