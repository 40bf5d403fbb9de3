//! Errors that are answers: `on_error = "record"`.

use serde::Serialize;

use crate::model::{Recorded, json};

/// An error type that says which of its values are final, for `on_error = "record"`.
///
/// A final error is recorded like a success: the body's writes are rolled back, the key is used up, and every retry gets
/// the same refusal. All other errors free the key.
///
/// ```
/// use effectively::{Recorded, Refusal};
///
/// enum PayError {
///     CardDeclined,
///     Database(sqlx::Error),
/// }
///
/// impl Refusal for PayError {
///     fn refusal(&self) -> Option<Recorded> {
///         match self {
///             Self::CardDeclined => Recorded::json_refusal(402, &"card_declined"),
///             Self::Database(_) => None,
///         }
///     }
/// }
/// ```
///
/// A status that asks for a retry (5xx, 408, 425, 429) is never final: such a refusal frees the key whatever this says.
#[diagnostic::on_unimplemented(
    message = "`on_error = \"record\"` needs to know which values of `{Self}` are final",
    label = "`effectively::Refusal` is missing here",
    note = "implement `effectively::Refusal` for the handler's error type, or leave `on_error` out: then every error frees the key"
)]
pub trait Refusal: Sized {
    /// The recorded form of this error when it is final, or `None` when a retry may end otherwise.
    fn refusal(&self) -> Option<Recorded>;

    /// The error again. Only `transparent` handlers and [`Refused::into_error`](crate::Refused::into_error) need it.
    fn from_refusal(recorded: &Recorded) -> Option<Self> {
        let _ = recorded;
        None
    }

    /// What a `transparent` handler returns for a replay: the error, marked as one where the type can carry that.
    fn replay(recorded: &Recorded) -> Option<Self> {
        Self::from_refusal(recorded)
    }
}

impl Recorded {
    /// A final refusal with an HTTP status and a JSON body. `None`, which frees the key, when the body cannot be written: also
    /// when it holds a `NaN` or an infinity, which JSON does not have.
    pub fn json_refusal(status: u16, body: &(impl Serialize + ?Sized)) -> Option<Self> {
        let body = json::write(body).ok()?;
        Some(
            Self::refusal(body)
                .with_status(status)
                .with_header("content-type", b"application/json"),
        )
    }

    /// Whether the answer may be replayed for as long as the retention: it does not itself ask for a retry.
    pub(super) fn is_final(&self) -> bool {
        !matches!(self.status(), Some(408 | 425 | 429 | 500..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_json_cannot_say_is_not_recorded() {
        assert!(Recorded::json_refusal(402, &[1.0, f64::NAN]).is_none());
        assert!(Recorded::json_refusal(402, &[None, Some(1.5)]).is_some());
    }

    #[test]
    fn a_status_that_asks_for_a_retry_is_never_final() {
        for (status, is_final) in [
            (400, true),
            (402, true),
            (408, false),
            (409, true),
            (425, false),
            (429, false),
            (500, false),
            (503, false),
        ] {
            let recorded = Recorded::json_refusal(status, "no").unwrap();
            assert_eq!(recorded.is_final(), is_final, "{status}");
        }
        assert!(
            Recorded::refusal(Vec::new()).is_final(),
            "without a status the error type alone decides"
        );
    }
}
