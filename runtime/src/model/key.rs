//! The idempotency key: a scope and parts, checked and hashed before any SQL sees them.

use std::{borrow::Cow, fmt};

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, KeyProblem};

/// The longest part of a key, in bytes. 255 is what Stripe documents and most clients expect.
const MAX_PART_BYTES: usize = 255;
const MAX_SCOPE_BYTES: usize = 64;

/// The name of one logical operation: a [`Scope`] and what the caller's call is about.
///
/// Only a 32-byte SHA-256 of the length-prefixed scope and parts is stored. So no separator in a part can make two keys meet,
/// no collation applies, and no personal data is kept.
///
/// The attribute `#[idempotent(key = "…")]` makes it from its template; [`Ledger::run`](crate::Ledger::run) takes one made here.
///
/// ```
/// use effectively::Key;
///
/// let key = Key::new("orders.place", &[&42_i64, &"8e03978e"])?;
/// assert_eq!(key, Key::new("orders.place", &[&"42", &String::from("8e03978e")])?);
/// assert_ne!(key, Key::new("orders.place", &[&"4", &"28e03978e"])?);
/// # Ok::<_, effectively::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    scope: Scope,
    hash: KeyHash,
}

impl Key {
    /// A key made of a scope and at least one part.
    ///
    /// # Errors
    /// [`ErrorKind::ScopeInvalid`] and [`ErrorKind::KeyInvalid`]: see [`Scope::new`] and [`KeyPart`].
    pub fn new(
        scope: impl Into<Cow<'static, str>>,
        parts: &[&(dyn KeyPart + Sync)],
    ) -> Result<Self, Error> {
        let builder = KeyBuilder::new(Scope::new(scope)?);
        parts
            .iter()
            .fold(builder, |builder, part| builder.part(*part))
            .finish()
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(crate) fn hash(&self) -> KeyHash {
        self.hash
    }
}

/// Shows the scope only: what a caller chose stays out of logs.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("scope", &self.scope.as_str())
            .finish_non_exhaustive()
    }
}

/// The namespace that a key is unique in: 1 to 64 characters out of `A-Z a-z 0-9 . _ -`.
///
/// The default of `#[idempotent]` is the function's name, never its module path, so that moving code changes nothing stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope(Cow<'static, str>);

impl Scope {
    /// A scope with this name.
    ///
    /// # Errors
    /// [`ErrorKind::ScopeInvalid`] when it is empty, over 64 characters, or holds another character.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self, Error> {
        let name = name.into();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > MAX_SCOPE_BYTES || !name.bytes().all(allowed) {
            return Err(ErrorKind::ScopeInvalid.into());
        }
        Ok(Self(name))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A value that may stand in a key: text, integers, `bool`, `char`, [`uuid::Uuid`], and what derives it.
///
/// The text must be 1 to 255 bytes without control characters, else the call is refused before any SQL. Two values with the
/// same text are the same part. Floats, `Option` and collections are not parts on purpose: their text is not an identity.
///
/// ```
/// # use std::borrow::Cow;
/// use effectively::KeyPart;
///
/// #[derive(KeyPart)]
/// struct TenantId(i64);
///
/// assert_eq!(TenantId(7).key_part(), "7");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a part of a key",
    label = "not usable as a part of a key",
    note = "parts are text, integers, `bool`, `char`, `Uuid`, and newtypes that derive `effectively::KeyPart`",
    note = "name one of its fields in the key instead: `{{order.id}}`"
)]
pub trait KeyPart {
    /// The text that identifies the value.
    fn key_part(&self) -> Cow<'_, str>;
}

impl KeyPart for str {
    fn key_part(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}

impl KeyPart for String {
    fn key_part(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}

impl KeyPart for Cow<'_, str> {
    fn key_part(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}

impl<T: KeyPart + ?Sized> KeyPart for &T {
    fn key_part(&self) -> Cow<'_, str> {
        (**self).key_part()
    }
}

macro_rules! key_part_by_display {
    ($($type:ty)*) => {$(
        impl KeyPart for $type {
            fn key_part(&self) -> Cow<'_, str> {
                Cow::Owned(self.to_string())
            }
        }
    )*};
}
key_part_by_display!(i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize bool char uuid::Uuid);

/// SHA-256 over the length-prefixed scope and parts: what a claim is stored under.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub(crate) [u8; 32]);

/// Hidden, too: a short key could be guessed from its hash.
impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

impl KeyHash {
    /// The first 64 bits, for databases whose advisory locks are integers. A collision costs a wait, never a wrong answer.
    #[cfg(feature = "postgres")]
    pub(crate) fn lock_id(self) -> i64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        i64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Builds a key part by part; remembers the first broken rule until [`finish`](Self::finish).
#[doc(hidden)]
#[derive(Debug)]
pub struct KeyBuilder {
    scope: Scope,
    digest: Sha256,
    parts: usize,
    problem: Option<KeyProblem>,
}

impl KeyBuilder {
    #[doc(hidden)]
    pub fn new(scope: Scope) -> Self {
        let mut digest = Sha256::new();
        absorb(&mut digest, b's', scope.as_str());
        Self {
            scope,
            digest,
            parts: 0,
            problem: None,
        }
    }

    /// Fixed text of the template. It separates keys but identifies nobody.
    #[doc(hidden)]
    pub fn literal(mut self, text: &str) -> Self {
        absorb(&mut self.digest, b'l', text);
        self
    }

    #[doc(hidden)]
    pub fn part(mut self, part: &(impl KeyPart + ?Sized)) -> Self {
        let text = part.key_part();
        self.parts += 1;
        self.problem = self.problem.or(broken_rule(&text, self.parts));
        absorb(&mut self.digest, b'p', &text);
        self
    }

    #[doc(hidden)]
    pub fn finish(self) -> Result<Key, Error> {
        match self.problem {
            Some(problem) => Err(problem.into()),
            None if self.parts == 0 => Err(KeyProblem::NoParts.into()),
            None => Ok(Key {
                scope: self.scope,
                hash: KeyHash(self.digest.finalize().into()),
            }),
        }
    }
}

pub(crate) fn broken_rule(text: &str, part: usize) -> Option<KeyProblem> {
    if text.is_empty() {
        Some(KeyProblem::Empty { part })
    } else if text.len() > MAX_PART_BYTES {
        Some(KeyProblem::TooLong { part })
    } else if text.chars().any(char::is_control) {
        Some(KeyProblem::ControlCharacter { part })
    } else {
        None
    }
}

/// Kind and length come first, so that no text can imitate the end of another.
fn absorb(digest: &mut Sha256, kind: u8, text: &str) {
    digest.update([kind]);
    digest.update((text.len() as u64).to_be_bytes());
    digest.update(text.as_bytes());
}
