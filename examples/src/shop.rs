//! The application's own types: what an order is, who places it, what may go wrong.

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, header::AUTHORIZATION, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

/// What a client asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlaceOrder {
    /// What is ordered.
    pub item: String,
}

/// What a client gets.
#[derive(Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// The number of the order.
    pub order_id: i64,
}

/// Who is calling. It stands in for a login: `Authorization: Bearer alice` is alice, nobody checks.
///
/// In the key of a call it keeps the callers apart, so take it from what the server has verified.
#[derive(Debug)]
pub struct User {
    /// Never empty.
    pub id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AppError> {
        let header = parts.headers.get(AUTHORIZATION);
        let token = header
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        match token {
            Some(id) if !id.is_empty() => Ok(Self { id: id.to_owned() }),
            _ => Err(AppError::NotLoggedIn),
        }
    }
}

/// What may go wrong. The toolkit's own errors do not pass through here: they answer by themselves.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// There is no `Authorization: Bearer …`.
    #[error("say who you are: `Authorization: Bearer alice`")]
    NotLoggedIn,
    /// The database refused a statement.
    #[error("the order could not be placed")]
    Database(#[from] sqlx::Error),
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotLoggedIn => StatusCode::UNAUTHORIZED,
            Self::Database(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, self.to_string()).into_response()
    }
}
