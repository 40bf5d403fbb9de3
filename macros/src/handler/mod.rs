//! The pipeline of `#[idempotent]` and `#[outbox]`.
//!
//! ```text
//! Input                                              Output
//!   #[idempotent(key = "{cmd.id}")]                    #[outbox(__done)]
//!   #[outbox]                                          async fn place(ledger: Ledger<…>, cmd: Cmd) -> Answers<R, Emitting> {
//!   async fn place(tx: &mut C, cmd: Cmd) -> R {            claim the key, or skip the body
//!       body                                               { let tx = the transaction; async move { body }.await }
//!   }                                                      record, store events, commit
//!                                                      }
//! ```
//!
//! Whichever of the two stands outermost does all of it. The other stays where it is as `#[outbox(__done)]`, which expands
//! to the function itself: so its import stays in use, and attributes between them keep their place.

mod args;
mod body;
mod check;
mod emit;
mod instrument;
mod model;
mod stack;

use proc_macro2::TokenStream;
use quote::quote;

pub(crate) use self::{
    args::Args,
    stack::{Attr, mark_done},
};
use self::{model::Operation, stack::Stack};
use crate::{
    diag::Diag,
    fallback,
    func::{self, Func},
};

/// Expands one attribute, and with it the other.
pub(crate) fn expand(attr: Attr, args: TokenStream, item: TokenStream) -> TokenStream {
    if stack::is_done(&args) {
        return item;
    }
    match syn::parse2::<Func>(item.clone()) {
        Ok(func) => expand_func(attr, args, func, &Args::new()),
        Err(mistake) => {
            let mistake = func::not_a_function(&item, mistake).to_compile_error();
            quote!(#item #mistake)
        }
    }
}

/// Expands the attribute of a function whose impl block gives some options to all of its methods.
pub(crate) fn expand_func(
    attr: Attr,
    args: TokenStream,
    mut func: Func,
    outer: &Args,
) -> TokenStream {
    let diag = Diag::new();
    let stack = Stack::read(attr, args, &mut func.attrs, outer, &diag);
    if check::is_rewritten(&func) {
        check::renamed_sibling(&stack, &diag);
        return fallback::without_body(func, &diag.finish());
    }
    match Operation::new(&func, &stack, &diag) {
        Some(operation) => {
            let mistakes = diag.finish();
            let func = emit::handler(&operation);
            quote!(#func #mistakes)
        }
        None if check::returns_boxed_future(&func) => {
            fallback::without_transaction(func, &diag.finish())
        }
        None => fallback::untouched(&func, &diag.finish()),
    }
}
