//! What an annotated function means.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use syn::{Attribute, Expr, FnArg, Pat, ReturnType, Type};

use super::{check, stack::Stack};
use crate::{
    bindings::Bindings,
    diag::Diag,
    func::Func,
    paths::Runtime,
    template::{Root, Template},
};

/// A handler, ready to be emitted.
pub(super) struct Operation<'a> {
    pub(super) func: &'a Func,
    pub(super) runtime: Runtime,
    pub(super) tx: Tx<'a>,
    pub(super) returns: &'a Type,
    /// Names that the other parameters bind.
    pub(super) bindings: Bindings,
    /// Where the ledger comes from; `None`: it takes the place of `tx` among the parameters.
    pub(super) ledger: Option<&'a Expr>,
    /// `None`: `#[outbox]` alone.
    pub(super) key: Option<Key<'a>>,
    pub(super) emits: bool,
    pub(super) transparent: bool,
    pub(super) detach: bool,
    pub(super) scope: String,
    pub(super) retention: Option<Duration>,
    pub(super) wait: Option<Duration>,
    /// As the runtime spells it.
    pub(super) isolation: &'static str,
    /// As the runtime spells it.
    pub(super) on_error: &'static str,
    pub(super) retries: u8,
}

/// The key of a call.
pub(super) struct Key<'a> {
    /// `None`: it has a mistake, which is reported. The function is emitted all the same, so that its body is checked.
    pub(super) template: Option<Template>,
    pub(super) span: Span,
    pub(super) shared_by_all: bool,
    pub(super) fingerprint: &'a [Expr],
}

/// The parameter that the transaction is lent through.
pub(super) struct Tx<'a> {
    pub(super) index: usize,
    pub(super) attrs: &'a [Attribute],
    pub(super) pattern: &'a Pat,
    /// The type behind `&mut`.
    pub(super) connection: &'a Type,
}

const DEFAULT_ISOLATION: &str = "ReadCommitted";
const DEFAULT_ON_ERROR: &str = "Release";

impl<'a> Operation<'a> {
    /// `None` when the function has not the shape of a handler; any other mistake leaves an operation that can be emitted.
    pub(super) fn new(func: &'a Func, stack: &'a Stack, diag: &Diag) -> Option<Self> {
        let args = &stack.args;
        let is_async = check::is_async(func, diag);
        let tx = tx(func).or_else(|| check::no_tx(func, diag));
        let returns = check::returns(func, diag);
        let is_tx = |index: usize| tx.as_ref().is_some_and(|tx| tx.index == index);
        let inputs = func.sig.inputs.iter().enumerate();
        let others = inputs
            .filter(|(index, _)| !is_tx(*index))
            .map(|(_, input)| input);
        let bindings = Bindings::of(others);
        let key = stack
            .idempotent
            .map(|span| key(stack, span, tx.as_ref(), &bindings, diag));
        let can_detach = check::detach(func, args, tx.as_ref(), diag);
        check::all(func, stack, tx.as_ref(), diag);
        let (true, Some(tx), Some(returns)) = (is_async, tx, returns) else {
            return None;
        };
        Some(Self {
            func,
            runtime: Runtime::new(args.runtime.value().map(|runtime| &runtime.0)),
            tx,
            returns,
            bindings,
            ledger: args.from.value().map(|source| &source.0),
            key,
            emits: stack.outbox.is_some(),
            transparent: args.transparent.value().is_some(),
            detach: args.detach.value().is_some() && can_detach,
            scope: args
                .scope
                .value()
                .map_or_else(|| check::default_scope(func), |scope| scope.0.clone()),
            retention: args.retention.value().map(|retention| retention.0),
            wait: args.wait.value().map(|wait| wait.0),
            isolation: args
                .isolation
                .value()
                .map_or(DEFAULT_ISOLATION, |level| level.0),
            on_error: args
                .on_error
                .value()
                .map_or(DEFAULT_ON_ERROR, |policy| policy.0),
            retries: args.retries.value().map_or(0, |retries| retries.0),
        })
    }
}

/// The first parameter after `self`, if it is a `&mut`.
fn tx(func: &Func) -> Option<Tx<'_>> {
    let (index, parameter) = first_parameter(func)?;
    let connection = match bare(&parameter.ty) {
        Type::Reference(reference) if reference.mutability.is_some() => bare(&reference.elem),
        _ => return None,
    };
    Some(Tx {
        index,
        attrs: &parameter.attrs,
        pattern: &parameter.pat,
        connection,
    })
}

pub(super) fn first_parameter(func: &Func) -> Option<(usize, &syn::PatType)> {
    func.sig
        .inputs
        .iter()
        .enumerate()
        .find_map(|(index, input)| match input {
            FnArg::Typed(parameter) => Some((index, parameter)),
            FnArg::Receiver(_) => None,
        })
}

/// The type inside parentheses, and inside the invisible ones that `macro_rules!` puts around `$t:ty`.
pub(super) fn bare(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => bare(&group.elem),
        Type::Paren(paren) => bare(&paren.elem),
        _ => ty,
    }
}

pub(super) fn return_type(func: &Func) -> Option<&Type> {
    match &func.sig.output {
        ReturnType::Type(_, ty) => Some(ty),
        ReturnType::Default => None,
    }
}

impl Operation<'_> {
    /// The runtime's module for generated code.
    pub(super) fn private(&self) -> TokenStream {
        self.private_at(Span::call_site())
    }

    /// The same, for what the compiler shall report in the user's tokens.
    pub(super) fn private_at(&self, span: Span) -> TokenStream {
        self.runtime.private(span)
    }
}

fn key<'a>(
    stack: &'a Stack,
    attribute: Span,
    tx: Option<&Tx>,
    bindings: &Bindings,
    diag: &Diag,
) -> Key<'a> {
    let args = &stack.args;
    let before = diag.len();
    let template = args
        .key
        .value()
        .map(|text| Template::parse(&text.0, Root::Parameter, diag));
    match (&template, args.key.span()) {
        (Some(template), Some(_)) if diag.len() == before => check::template(args, template, tx, bindings, diag),
        (None, None) if stack.understood => diag.at_span(attribute, "`key` is missing: say what one call is about, `#[idempotent(key = \"order:{cmd.order_id}\")]`"),
        _ => {}
    }
    let fingerprint = args.fingerprint.value().map_or(&[][..], |paths| &paths.0);
    let fingerprint = if check::fingerprint(fingerprint, tx, bindings, diag) {
        fingerprint
    } else {
        &[]
    };
    Key {
        template: template.filter(|_| diag.len() == before),
        span: args.key.value().map_or(attribute, |text| text.0.span()),
        shared_by_all: args.shared_by_all.span().is_some(),
        fingerprint,
    }
}
