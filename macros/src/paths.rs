//! Absolute paths to the runtime.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::Path;

/// The crate `effectively`, under the name that `crate = …` gives it.
#[derive(Clone)]
pub(crate) struct Runtime {
    renamed: Option<Path>,
}

impl Runtime {
    pub(crate) fn new(renamed: Option<&Path>) -> Self {
        Self {
            renamed: renamed.cloned(),
        }
    }

    /// The crate itself, for names that users see in signatures. The compiler blames the place of `span` for what it lacks.
    pub(crate) fn root(&self, span: Span) -> TokenStream {
        match &self.renamed {
            Some(path) => path.to_token_stream(),
            None => quote_spanned!(span.resolved_at(Span::call_site())=> ::effectively),
        }
    }

    /// The module for generated code, the only one it may name besides those.
    pub(crate) fn private(&self, span: Span) -> TokenStream {
        let root = self.root(span);
        quote_spanned!(span.resolved_at(Span::call_site())=> #root::__private)
    }
}
