//! Who uses which scope: two handlers with one scope would take each other's calls for repeats of their own.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use crate::{
    error::{Error, ErrorKind},
    model::Handler,
};

/// The place of the handler that claimed each scope first.
#[derive(Debug, Default)]
pub(super) struct Scopes(RwLock<HashMap<&'static str, &'static str>>);

impl Scopes {
    /// # Errors
    /// [`ErrorKind::DuplicateScope`] for a second handler, before its first claim.
    pub(super) fn admit(&self, handler: &Handler) -> Result<(), Error> {
        // `Ledger::run` names its scope at every call and stands nowhere.
        if handler.place.is_empty() {
            return Ok(());
        }
        let known = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(handler.scope)
            .copied();
        let first = match known {
            Some(first) => first,
            None => *self
                .0
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(handler.scope)
                .or_insert(handler.place),
        };
        if first == handler.place {
            return Ok(());
        }
        Err(ErrorKind::DuplicateScope {
            scope: handler.scope.into(),
            first,
            second: handler.place,
        }
        .into())
    }
}
