//! Collects every mistake, so that they are reported together.

use std::{cell::RefCell, fmt::Display};

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;

/// The mistakes found so far. Forgetting to [`finish`](Self::finish) it panics: a mistake would go unreported.
#[derive(Debug)]
pub(crate) struct Diag {
    mistakes: RefCell<Option<Vec<syn::Error>>>,
}

impl Diag {
    pub(crate) fn new() -> Self {
        Self {
            mistakes: RefCell::new(Some(Vec::new())),
        }
    }

    pub(crate) fn push(&self, mistake: syn::Error) {
        if let Some(mistakes) = self.mistakes.borrow_mut().as_mut() {
            mistakes.push(mistake);
        }
    }

    /// A mistake in these tokens, all of which are underlined.
    pub(crate) fn at(&self, tokens: impl ToTokens, message: impl Display) {
        self.push(syn::Error::new_spanned(tokens, message));
    }

    pub(crate) fn at_span(&self, span: Span, message: impl Display) {
        self.push(syn::Error::new(span, message));
    }

    /// The value, or a mistake.
    pub(crate) fn check<T>(&self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|mistake| self.push(mistake)).ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.mistakes.borrow().as_ref().map_or(0, Vec::len)
    }

    /// What makes the compiler report all mistakes; nothing when there is none.
    pub(crate) fn finish(self) -> TokenStream {
        let mistakes = self.mistakes.take().unwrap_or_default();
        mistakes.iter().map(syn::Error::to_compile_error).collect()
    }
}

impl Drop for Diag {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(
                self.mistakes.get_mut().is_none(),
                "a `Diag` was dropped without `finish`"
            );
        }
    }
}

/// Ends a message about an unknown name: the nearest known one, or all of them.
pub(crate) fn instead(name: &str, what: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|known| (strsim::osa_distance(name, known), known))
        .min();
    match near {
        Some((distance, near)) if distance <= (name.len().max(near.len()) / 3).max(1) => {
            format!("; did you mean `{near}`?")
        }
        Some(_) => format!("; {what} {}", list(known)),
        None => "; there are none".to_owned(),
    }
}

/// `a`, `b` and `c`.
fn list(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => format!("is {last}"),
        Some((last, others)) => format!("are {} and {last}", others.join(", ")),
        None => String::new(),
    }
}
