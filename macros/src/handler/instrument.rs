//! `#[tracing::instrument(skip(tx))]` below the attribute of a handler whose ledger is not a parameter: there is no `tx` to skip.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Meta, Pat, Token, ext::IdentExt, parse::Parser, punctuated::Punctuated};

use super::model::Operation;

/// The other attributes of the function, which see its rewritten signature.
pub(super) fn attributes(operation: &Operation) -> Vec<Attribute> {
    let mut attributes = operation.func.attrs.clone();
    if let (Some(_), Pat::Ident(tx)) = (operation.ledger, operation.tx.pattern) {
        for attribute in &mut attributes {
            if let Meta::List(list) = &mut attribute.meta {
                let tokens = std::mem::take(&mut list.tokens);
                let is_instrument = holds_instrument(list.path.to_token_stream())
                    || holds_instrument(tokens.clone());
                list.tokens = if is_instrument {
                    without(&tx.ident, tokens)
                } else {
                    tokens
                };
            }
        }
    }
    attributes
}

/// Also inside `cfg_attr(…)`.
fn holds_instrument(tokens: TokenStream) -> bool {
    tokens
        .into_iter()
        .any(|token| matches!(token, TokenTree::Ident(ident) if ident == "instrument"))
}

/// `skip(self, tx)` becomes `skip(self)`, at any depth.
fn without(name: &Ident, tokens: TokenStream) -> TokenStream {
    let mut is_skip = false;
    let mut rewritten = TokenStream::new();
    for token in tokens {
        let follows_skip = is_skip;
        is_skip = matches!(&token, TokenTree::Ident(ident) if ident == "skip");
        rewritten.extend([match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {
                let inner = if follows_skip {
                    not_skipped(name, group.stream())
                } else {
                    without(name, group.stream())
                };
                let mut skipping = Group::new(Delimiter::Parenthesis, inner);
                skipping.set_span(group.span());
                TokenTree::Group(skipping)
            }
            token => token,
        }]);
    }
    rewritten
}

/// The names without this one. What is not a list of names is left for `tracing` to refuse.
fn not_skipped(name: &Ident, names: TokenStream) -> TokenStream {
    let list = Punctuated::<Ident, Token![,]>::parse_terminated_with;
    let parser = |input: syn::parse::ParseStream| list(input, Ident::parse_any);
    let Ok(all) = parser.parse2(names.clone()) else {
        return names;
    };
    let kept = all.into_iter().filter(|skipped| skipped != name);
    kept.collect::<Punctuated<Ident, Token![,]>>()
        .into_token_stream()
}
