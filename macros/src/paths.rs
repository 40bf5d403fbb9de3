//! Absolute paths to the runtime.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::Path;

/// The crate `effectively`, under the name that `crate = …` gives it.
#[derive(Clone)]
pub(crate) struct Runtime {
    root: TokenStream,
}

impl Runtime {
    pub(crate) fn new(renamed: Option<&Path>) -> Self {
        let root = match renamed {
            Some(path) => path.to_token_stream(),
            None => quote_spanned!(Span::call_site()=> ::effectively),
        };
        Self { root }
    }

    /// The crate itself, for names that users see in signatures.
    pub(crate) fn root(&self) -> &TokenStream {
        &self.root
    }

    /// The module for generated code, the only one it may name besides those.
    pub(crate) fn private(&self) -> TokenStream {
        let root = &self.root;
        quote_spanned!(Span::call_site()=> #root::__private)
    }
}
