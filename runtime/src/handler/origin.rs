//! Where the parts of a key come from: a key made only of the caller's [`IdempotencyKey`] does not compile.
//!
//! Generated code writes `part.__add_to_key(parts)`. For an `IdempotencyKey` the inherent method wins and the origin stays
//! what it was; for anything else the method of [`AnyPart`] makes it [`Server`]. This works for generic parts too, where an
//! associated type on `KeyPart` does not.

use std::{borrow::Borrow, marker::PhantomData};

use super::IdempotencyKey;
use crate::{
    error::Error,
    model::{
        Handler, Key, Scope,
        key::{KeyBuilder, KeyPart},
    },
};

/// So far only parts that the caller chose.
#[derive(Debug)]
pub enum Caller {}

/// At least one part that is not an `IdempotencyKey`.
#[derive(Debug)]
pub enum Server {}

/// Says that a key has a part besides the caller's.
#[diagnostic::on_unimplemented(
    message = "a key made only of the caller's `IdempotencyKey` would let one caller read the answer of another",
    label = "nothing here says whose call it is",
    note = "add a part that the server knows: `key = \"{{user.id}}/{{idempotency_key}}\"`",
    note = "or write `shared_by_all` if every caller may share it"
)]
pub trait Owned {}

impl Owned for Server {}

/// A key in the making.
#[derive(Debug)]
pub struct KeyParts<O> {
    builder: Result<KeyBuilder, Error>,
    origin: PhantomData<O>,
}

/// Begins the key of a handler.
pub fn key(handler: &Handler) -> KeyParts<Caller> {
    KeyParts {
        builder: Scope::new(handler.scope).map(KeyBuilder::new),
        origin: PhantomData,
    }
}

impl<O> KeyParts<O> {
    /// Fixed text of the template.
    pub fn literal(self, text: &str) -> Self {
        self.then(|builder| builder.literal(text))
    }

    /// The key, if somebody owns it.
    ///
    /// # Errors
    /// Of the first part that breaks a rule.
    pub fn finish(self) -> Result<Key, Error>
    where
        O: Owned,
    {
        self.finish_shared()
    }

    /// The key, for `shared_by_all`.
    ///
    /// # Errors
    /// Of the first part that breaks a rule.
    pub fn finish_shared(self) -> Result<Key, Error> {
        self.builder?.finish()
    }

    fn then<P>(self, step: impl FnOnce(KeyBuilder) -> KeyBuilder) -> KeyParts<P> {
        KeyParts {
            builder: self.builder.map(step),
            origin: PhantomData,
        }
    }
}

impl IdempotencyKey {
    /// Adds the caller's part. It takes an argument, so no template can call it.
    #[doc(hidden)]
    pub fn __add_to_key<O>(&self, parts: KeyParts<O>) -> KeyParts<O> {
        parts.then(|builder| builder.part(Self::expose(self)))
    }
}

/// The caller's key where a request is not taken apart before the handler runs: it may be missing or malformed, and the call
/// then fails as an extractor would have failed it. It counts as the caller's part, like an [`IdempotencyKey`].
#[cfg(feature = "tonic")]
#[derive(Debug)]
pub struct CallerKey(pub(crate) Result<IdempotencyKey, Error>);

#[cfg(feature = "tonic")]
impl CallerKey {
    /// Adds the caller's part, or why there is none.
    #[doc(hidden)]
    pub fn __add_to_key<O>(self, parts: KeyParts<O>) -> KeyParts<O> {
        match self.0 {
            Ok(key) => key.__add_to_key(parts),
            Err(error) => KeyParts {
                builder: parts.builder.and(Err(error)),
                origin: PhantomData,
            },
        }
    }
}

/// The `__add_to_key` of everything else.
pub trait AnyPart {
    /// Begins the key of a handler: [`key`] as a method of this trait, so that its import is in use whatever the parts are.
    fn __begin_key(&self) -> KeyParts<Caller>
    where
        Self: Borrow<Handler>,
    {
        key(self.borrow())
    }

    /// Adds the part.
    fn __add_to_key<O>(&self, parts: KeyParts<O>) -> KeyParts<Server>
    where
        Self: KeyPart;
}

impl<T: ?Sized> AnyPart for T {
    fn __add_to_key<O>(&self, parts: KeyParts<O>) -> KeyParts<Server>
    where
        T: KeyPart,
    {
        parts.then(|builder| builder.part(self))
    }
}
