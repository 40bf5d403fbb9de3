//! The caller's name for one operation.

use std::fmt;

use crate::{error::Error, model::key};

/// The `Idempotency-Key` that a caller sent: 1 to 255 bytes without control characters.
///
/// It is not a [`KeyPart`](crate::KeyPart), and on purpose no method of it yields one: a key made only of it would let one
/// caller read the answer of another, so such a template does not compile without `shared_by_all`. In a template it is
/// named as it is: `key = "{user.id}/{idempotency_key}"`. The limit of this check: it cannot know who owns the other parts.
/// A part that the caller chooses as well (a field of the body) separates nobody.
///
/// `Debug` does not show it, and there is no `Display`.
///
/// ```
/// use effectively::IdempotencyKey;
///
/// let key = IdempotencyKey::new("8e03978e-40d5-43dd-bc93-6894a57f9324")?;
/// assert_eq!(IdempotencyKey::expose(&key), "8e03978e-40d5-43dd-bc93-6894a57f9324");
/// assert!(IdempotencyKey::new("").is_err());
/// # Ok::<_, effectively::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// A key with this text.
    ///
    /// # Errors
    /// [`ErrorKind::KeyInvalid`](crate::ErrorKind::KeyInvalid) when it is empty, longer than 255 bytes, or holds a control character.
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        match key::broken_rule(&text, 1) {
            Some(problem) => Err(problem.into()),
            None => Ok(Self(text)),
        }
    }

    /// The text, for other uses than a key. Not a method, so that no template can call it.
    pub fn expose(key: &Self) -> &str {
        &key.0
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IdempotencyKey").finish_non_exhaustive()
    }
}
