//! The attribute and derive macros of `effectively`. Depend on that crate, not on this one.
//!
//! Each door below hands its tokens to one pipeline: read what is written, make a model of it, check, emit. Start with
//! `handler/mod.rs`, the pipeline of both attributes.

mod bindings;
mod diag;
mod func;
mod options;
mod slot;
mod values;

mod fallback;
mod outside;
mod paths;
mod template;
mod value_path;

mod event;
mod handler;
mod handlers;
mod key_part;

#[cfg(test)]
mod tests;

use proc_macro::TokenStream;

use crate::handler::Attr;

#[doc = include_str!("docs/idempotent.md")]
#[proc_macro_attribute]
pub fn idempotent(args: TokenStream, item: TokenStream) -> TokenStream {
    handler::expand(Attr::Idempotent, args.into(), item.into()).into()
}

#[doc = include_str!("docs/outbox.md")]
#[proc_macro_attribute]
pub fn outbox(args: TokenStream, item: TokenStream) -> TokenStream {
    handler::expand(Attr::Outbox, args.into(), item.into()).into()
}

#[doc = include_str!("docs/handlers.md")]
#[proc_macro_attribute]
pub fn handlers(args: TokenStream, item: TokenStream) -> TokenStream {
    handlers::expand(args.into(), item.into()).into()
}

#[doc = include_str!("docs/event.md")]
#[proc_macro_derive(Event, attributes(event))]
pub fn event(item: TokenStream) -> TokenStream {
    event::expand(item.into()).into()
}

#[doc = include_str!("docs/key_part.md")]
#[proc_macro_derive(KeyPart)]
pub fn key_part(item: TokenStream) -> TokenStream {
    key_part::expand(item.into()).into()
}
