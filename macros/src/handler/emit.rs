//! From an operation to tokens: the rewritten signature. `body.rs` makes what is inside.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{FnArg, Pat, PatIdent, Signature, parse_quote, spanned::Spanned, visit_mut::VisitMut};

use super::{body, instrument, model::Operation};
use crate::{bindings::Immutable, func::Func};

pub(super) fn handler(operation: &Operation) -> TokenStream {
    let Func {
        vis, defaultness, ..
    } = operation.func;
    let attrs = instrument::attributes(operation);
    let signature = signature(operation);
    let block = body::block(operation);
    quote!(#(#attrs)* #vis #defaultness #signature #block)
}

fn signature(operation: &Operation) -> Signature {
    let mut signature = operation.func.sig.clone();
    let at = |index| index == operation.tx.index;
    let ledger = operation
        .ledger
        .is_none()
        .then(|| ledger_parameter(operation));
    signature.inputs = signature
        .inputs
        .into_iter()
        .enumerate()
        .filter_map(|(index, input)| {
            if at(index) {
                ledger.clone()
            } else {
                Some(other_parameter(operation, input))
            }
        })
        .collect();
    let returns = returns(operation);
    signature.output = parse_quote!(-> #returns);
    signature
}

/// `tx: ::effectively::Ledger<<PgConnection as ::effectively::TxParam>::Db>`, where `tx` was.
fn ledger_parameter(operation: &Operation) -> FnArg {
    let name = ledger_name(operation);
    let ty = ledger_type(operation);
    parse_quote!(#name: #ty)
}

/// The ledger keeps the name of the parameter that it takes the place of: other attributes may name it, `#[instrument(skip(tx))]`.
pub(super) fn ledger_name(operation: &Operation) -> Ident {
    match (operation.ledger, operation.tx.pattern) {
        (None, Pat::Ident(PatIdent { ident, .. })) => ident.clone(),
        _ => local("ledger"),
    }
}

pub(super) fn ledger_type(operation: &Operation) -> TokenStream {
    let connection = operation.tx.connection;
    let root = operation.runtime.root(connection.span());
    quote_spanned!(connection.span().resolved_at(Span::call_site())=> #root::Ledger<<#connection as #root::TxParam>::Db>)
}

/// With `retries` each run of the body gets its own copy, and only that one may have to be `mut`.
fn other_parameter(operation: &Operation, mut input: FnArg) -> FnArg {
    if let (FnArg::Typed(parameter), 1..) = (&mut input, operation.retries) {
        Immutable.visit_pat_mut(&mut parameter.pat);
    }
    input
}

fn returns(operation: &Operation) -> TokenStream {
    let (content, ty) = (content(operation), operation.returns);
    let alias = match operation {
        Operation {
            transparent: true,
            emits: false,
            ..
        } => return quote!(#ty),
        Operation {
            transparent: true, ..
        } => "Bare",
        Operation { key: Some(_), .. } => "Answers",
        Operation { key: None, .. } => "Commits",
    };
    let (span, private) = (
        ty.span().resolved_at(Span::call_site()),
        operation.private_at(ty.span()),
    );
    let alias = Ident::new(alias, span);
    quote_spanned!(span=> #private::#alias<#ty, #content>)
}

/// The runtime's name for what `Ok` holds.
pub(super) fn content(operation: &Operation) -> TokenStream {
    let span = operation.returns.span();
    let private = operation.private_at(span);
    let content = Ident::new(
        if operation.emits { "Emitting" } else { "Plain" },
        span.resolved_at(Span::call_site()),
    );
    quote_spanned!(span.resolved_at(Span::call_site())=> #private::#content)
}

/// A local that no name of the user can meet.
pub(super) fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}
