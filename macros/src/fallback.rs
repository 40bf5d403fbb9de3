//! After a mistake in the shape of a function it still exists, so that callers and editors see one error and not ten.

use proc_macro2::{Group, TokenStream};
use quote::{ToTokens, quote};
use syn::{FnArg, Type, parse_quote};

use crate::func::Func;

/// The function as it was written, and the mistakes.
pub(crate) fn untouched(func: &Func, mistakes: &TokenStream) -> TokenStream {
    quote!(#func #mistakes)
}

/// The function without its body, and the mistakes: for a body that cannot fit its signature.
pub(crate) fn without_body(mut func: Func, mistakes: &TokenStream) -> TokenStream {
    let mut body = Group::new(func.body.delimiter(), quote!(::core::unreachable!()));
    body.set_span(func.body.span());
    func.body = body;
    // Nothing uses the parameters any more, and that is no mistake of the user's.
    for input in &mut func.sig.inputs {
        if let FnArg::Typed(parameter) = input {
            *parameter.pat = parse_quote!(_);
        }
    }
    quote!(#func #mistakes)
}

/// The same without its transaction either: for a method whose trait does not have that parameter. The lifetime that
/// `#[async_trait]` gave to it goes as well.
pub(crate) fn without_transaction(mut func: Func, mistakes: &TokenStream) -> TokenStream {
    let mut lifetimes = Vec::new();
    let inputs = std::mem::take(&mut func.sig.inputs).into_iter();
    let keep = |input: &FnArg| match lent(input) {
        Some(lifetime) => {
            lifetimes.push(lifetime);
            false
        }
        None => true,
    };
    func.sig.inputs = inputs.filter(keep).collect();
    let is_gone = |tokens: TokenStream| {
        let text = tokens.to_string();
        lifetimes
            .iter()
            .any(|lifetime| text.starts_with(lifetime.as_str()))
    };
    let generics = &mut func.sig.generics;
    let parameters = std::mem::take(&mut generics.params).into_iter();
    generics.params = parameters
        .filter(|parameter| !is_gone(parameter.to_token_stream()))
        .collect();
    if let Some(bounds) = &mut generics.where_clause {
        let predicates = std::mem::take(&mut bounds.predicates).into_iter();
        bounds.predicates = predicates
            .filter(|predicate| !is_gone(predicate.to_token_stream()))
            .collect();
    }
    without_body(func, mistakes)
}

/// The lifetime of a `&mut` parameter.
fn lent(input: &FnArg) -> Option<String> {
    let FnArg::Typed(parameter) = input else {
        return None;
    };
    match &*parameter.ty {
        Type::Reference(reference) if reference.mutability.is_some() => {
            reference.lifetime.as_ref().map(ToString::to_string)
        }
        _ => None,
    }
}
