//! Every path that generated code may name, and nothing more. Not public API: it changes without notice.

use serde::Serialize;

use crate::{
    error::Error,
    model::{Fingerprint, fingerprint::Content},
};

pub use crate::{
    engine::Ledger,
    handler::{
        HandlerReturn, TxParam,
        call::{commit, enter, enter_unkeyed, inside, leave, tx},
        detach::detach,
        origin::{AnyPart, key},
        policy::{Answers, Bare, Commits, Emitting, Plain, Record, Release, Transparent, Wrapped},
        retry::{Again, Turns, commit_or_again, leave_or_again},
    },
    model::{
        event::Event,
        handler::{Handler, Isolation, OnError},
        key::KeyPart,
    },
};
pub use std::{borrow::Cow, time::Duration};

/// A value that can be part of a fingerprint.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be fingerprinted",
    label = "not `serde::Serialize`",
    note = "derive `serde::Serialize` for it, or name only the part of it that must be the same: `fingerprint(cmd.amount)`"
)]
pub trait Fingerprinted: Serialize {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> Fingerprinted for T {}

/// The partition key of an event. It only has to keep an order, so its parts are simply joined.
pub fn partition_key(parts: &[&dyn KeyPart]) -> Option<Cow<'static, str>> {
    Some(Cow::Owned(
        parts.iter().map(|part| part.key_part()).collect(),
    ))
}

/// Gives a block the type of a `return` that is never reached.
pub fn typed<T>() -> T {
    unreachable!("this `return` only tells the compiler a type")
}

/// One value of a fingerprint.
///
/// # Errors
/// As [`Fingerprint::of`].
pub fn content(value: &(impl Fingerprinted + ?Sized)) -> Result<Content, Error> {
    Content::of(value)
}

/// The fingerprint of all values: of the value itself when there is one, and none when there is none.
///
/// # Errors
/// Of the first value.
pub fn fingerprint<const N: usize>(
    contents: [Result<Content, Error>; N],
) -> Result<Option<Fingerprint>, Error> {
    let contents = contents.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(match contents.as_slice() {
        [] => None,
        [only] => Some(only.fingerprint()),
        all => Some(Fingerprint::of_all(all)),
    })
}
