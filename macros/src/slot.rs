//! An option that may be given once.

use proc_macro2::{Ident, Span};
use syn::{Token, parse::ParseStream};

use crate::diag::Diag;

/// What can stand after the name of an option.
pub(crate) trait Value: Sized {
    /// Parses from behind the name. `form` is how the whole option is written, for the message.
    fn parse(input: ParseStream, form: &str) -> syn::Result<Self>;
}

/// One option: its name, how it is written, and its value once it is given.
pub(crate) struct Slot<T> {
    name: &'static str,
    form: &'static str,
    given: Option<Given<T>>,
}

struct Given<T> {
    name: Span,
    /// `None`: it was wrong, and that is reported.
    value: Option<T>,
}

impl<T> Slot<T> {
    pub(crate) fn new(name: &'static str, form: &'static str) -> Self {
        Self {
            name,
            form,
            given: None,
        }
    }

    pub(crate) fn value(&self) -> Option<&T> {
        self.given.as_ref()?.value.as_ref()
    }

    /// Where its name stands, also when its value is wrong.
    pub(crate) fn span(&self) -> Option<Span> {
        self.given.as_ref().map(|given| given.name)
    }

    /// The value of an enclosing item, where this one has none of its own.
    pub(crate) fn inherit(&mut self, outer: &Self)
    where
        T: Clone,
    {
        if let (None, Some(outer)) = (&self.given, &outer.given) {
            self.given = Some(Given {
                name: outer.name,
                value: outer.value.clone(),
            });
        }
    }
}

/// A [`Slot`] of any type, for the loop that reads options.
pub(crate) trait Read {
    fn name(&self) -> &'static str;

    fn read(&mut self, name: &Ident, input: ParseStream, diag: &Diag);
}

impl<T: Value> Read for Slot<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn read(&mut self, name: &Ident, input: ParseStream, diag: &Diag) {
        // At the end there is no token to blame but the name.
        let at_end = input.is_empty() || input.peek(Token![,]);
        let value = T::parse(input, self.form).map_err(|mistake| {
            if at_end {
                syn::Error::new(name.span(), mistake)
            } else {
                mistake
            }
        });
        let value = diag.check(value);
        if self.given.is_some() {
            diag.at(name, format!("`{}` is given twice; keep one", self.name));
        } else {
            self.given = Some(Given {
                name: name.span(),
                value,
            });
        }
    }
}
