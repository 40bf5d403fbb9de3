//! A stream shows in its type that it cannot be replayed.

use axum::{body::Body, http::StatusCode};
use effectively::{IdempotencyKey, idempotent};
use sqlx::SqliteConnection;

#[idempotent(key = "{user}/{idempotency_key}")]
async fn export(
    tx: &mut SqliteConnection,
    user: i64,
    idempotency_key: IdempotencyKey,
) -> Result<Body, StatusCode> {
    let _ = tx;
    Ok(Body::empty())
}

fn main() {}
