//! The names that the parameters of a function bind.

use proc_macro2::{Ident, Span};
use syn::{
    Attribute, FnArg, Meta, PatIdent, Token,
    ext::IdentExt,
    visit_mut::{self, VisitMut},
};

/// One name: where it is bound, and the `#[cfg]`s of its parameter.
pub(crate) struct Binding {
    pub(crate) ident: Ident,
    pub(crate) mutability: Option<Token![mut]>,
    pub(crate) cfgs: Vec<Attribute>,
}

/// All names in order, and `self` where there is one.
#[derive(Default)]
pub(crate) struct Bindings {
    pub(crate) names: Vec<Binding>,
    receiver: Option<Span>,
}

impl Bindings {
    pub(crate) fn of<'a>(inputs: impl Iterator<Item = &'a FnArg>) -> Self {
        let mut bindings = Self::default();
        for input in inputs {
            match input {
                FnArg::Receiver(receiver) => bindings.receiver = Some(receiver.self_token.span),
                FnArg::Typed(parameter) => {
                    let is_cfg = |attr: &&Attribute| {
                        attr.path().is_ident("cfg") && matches!(attr.meta, Meta::List(_))
                    };
                    let cfgs: Vec<_> = parameter.attrs.iter().filter(is_cfg).cloned().collect();
                    let mut pattern = parameter.pat.clone();
                    Collect {
                        names: &mut bindings.names,
                        cfgs: &cfgs,
                    }
                    .visit_pat_mut(&mut pattern);
                }
            }
        }
        bindings
    }

    /// Where a name, written without `r#`, is bound. Its span says how it resolves, also through `macro_rules!`.
    pub(crate) fn span(&self, name: &str) -> Option<Span> {
        if name == "self" {
            return self.receiver;
        }
        self.names
            .iter()
            .find(|binding| binding.ident.unraw() == name)
            .map(|binding| binding.ident.span())
    }

    pub(crate) fn list(&self) -> Vec<String> {
        let receiver = self.receiver.map(|_| "self".to_owned());
        let names = self.names.iter();
        let names = names.map(|binding| binding.ident.unraw().to_string());
        receiver.into_iter().chain(names).collect()
    }
}

struct Collect<'a> {
    names: &'a mut Vec<Binding>,
    cfgs: &'a [Attribute],
}

impl VisitMut for Collect<'_> {
    fn visit_pat_ident_mut(&mut self, pattern: &mut PatIdent) {
        // `ref mut` makes the name a reference, which needs no `mut` of its own.
        let mutability = if pattern.by_ref.is_some() {
            None
        } else {
            pattern.mutability
        };
        self.names.push(Binding {
            ident: pattern.ident.clone(),
            mutability,
            cfgs: self.cfgs.to_vec(),
        });
        visit_mut::visit_pat_ident_mut(self, pattern);
    }
}

/// Takes the `mut` off by-value bindings: the copies that each run of the body gets carry it instead.
pub(crate) struct Immutable;

impl VisitMut for Immutable {
    fn visit_pat_ident_mut(&mut self, pattern: &mut PatIdent) {
        if pattern.by_ref.is_none() {
            pattern.mutability = None;
        }
        visit_mut::visit_pat_ident_mut(self, pattern);
    }
}
