//! After a mistake in the shape of a function it still exists, so that callers and editors see one error and not ten.

use proc_macro2::{Group, TokenStream};
use quote::quote;

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
    quote!(#[allow(unused_variables)] #func #mistakes)
}
