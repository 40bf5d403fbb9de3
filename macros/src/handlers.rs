//! `#[handlers]` on an `impl`: expands the handlers inside while they still are `async fn`s.
//!
//! ```text
//! Input                                              Output
//!   #[effectively::handlers(from = self.ledger)]       #[async_trait]
//!   #[async_trait]                                     impl Orders for Service {
//!   impl Orders for Service {                              async fn place(&self, cmd: Cmd) -> Answers<R, Plain> { … }
//!       #[idempotent(key = "{cmd.id}")]                }
//!       async fn place(&self, tx: &mut C, cmd: Cmd) -> R { body }
//!   }
//! ```

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{
    Attribute, ImplItem, Meta,
    parse::{Parse, ParseStream, Parser, discouraged::Speculative},
};

use crate::{
    diag::Diag,
    func::Func,
    handler::{self, Args, Attr, mark_done},
    options,
};

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    let diag = Diag::new();
    let mut outer = Args::new();
    options::read(args, &mut outer.handlers(), |_| None, &diag);
    let expanded = match diag.check(split(&item)) {
        Some((head, body)) => methods(&head, &body, &outer, &diag),
        None => item,
    };
    let mistakes = diag.finish();
    quote!(#expanded #mistakes)
}

/// The `impl` up to its braces, and the braces.
fn split(item: &TokenStream) -> syn::Result<(TokenStream, Group)> {
    let mut head: Vec<_> = item.clone().into_iter().collect();
    let is_impl = head
        .iter()
        .any(|token| matches!(token, TokenTree::Ident(ident) if ident == "impl"));
    match head.pop() {
        Some(TokenTree::Group(body)) if is_impl && body.delimiter() == Delimiter::Brace => {
            Ok((head.into_iter().collect(), body))
        }
        _ => Err(syn::Error::new_spanned(
            item,
            "this attribute belongs on an `impl` block; on a function write `#[idempotent]` or `#[outbox]`",
        )),
    }
}

fn methods(head: &TokenStream, body: &Group, outer: &Args, diag: &Diag) -> TokenStream {
    let mut found = false;
    let all = |input: ParseStream| {
        let mut items: TokenStream = input
            .call(Attribute::parse_inner)?
            .into_iter()
            .map(ToTokens::into_token_stream)
            .collect();
        while !input.is_empty() {
            items.extend(item(input, outer, &mut found)?);
        }
        Ok(items)
    };
    let Some(items) = diag.check(all.parse2(body.stream())) else {
        return quote!(#head #body);
    };
    if !found {
        diag.at_span(proc_macro2::Span::call_site(), "no method of this `impl` has `#[idempotent]` or `#[outbox]`; put one on a method, or remove this attribute");
    }
    let mut block = Group::new(Delimiter::Brace, items);
    block.set_span(body.span());
    quote!(#head #block)
}

/// One item; a method with one of our attributes is expanded, everything else stays as it is.
fn item(input: ParseStream, outer: &Args, found: &mut bool) -> syn::Result<TokenStream> {
    let ahead = input.fork();
    let Ok(mut func) = ahead.call(Func::parse) else {
        return input.parse::<ImplItem>().map(ToTokens::into_token_stream);
    };
    input.advance_to(&ahead);
    let Some((attr, at)) = func
        .attrs
        .iter()
        .enumerate()
        .find_map(|(at, attribute)| Some((Attr::of(attribute)?, at)))
    else {
        return Ok(func.into_token_stream());
    };
    *found = true;
    let args = match func.attrs[at].meta.clone() {
        Meta::List(list) => list.tokens,
        Meta::Path(_) | Meta::NameValue(_) => TokenStream::new(),
    };
    // It stays in place, so that its import is in use.
    mark_done(&mut func.attrs[at]);
    Ok(handler::expand_func(attr, args, func, outer))
}
