//! The rules. Each says what would be right.

use proc_macro2::Span;
use quote::ToTokens;
use syn::{
    Expr, FnArg, GenericParam, Lifetime, Receiver, ReceiverKind, Type, TypeImplTrait,
    TypeReference,
    visit_mut::{self, VisitMut},
};

use super::{
    Args,
    model::{Tx, bare, first_parameter, return_type},
    stack::Stack,
};
use crate::{
    bindings::Bindings,
    diag::{Diag, instead},
    func::Func,
    outside,
    template::Template,
    value_path,
    values::scope_problem,
};

/// The rules that look at more than one thing.
pub(super) fn all(func: &Func, stack: &Stack, tx: Option<&Tx>, diag: &Diag) {
    let args = &stack.args;
    if stack.idempotent.is_some() {
        scope(func, args, tx, diag);
    }
    retries(func, args, diag);
    outside_calls(func, args, diag);
    from(func, args, diag);
}

/// `#[idempotent(…)] fn f(…)`
pub(super) fn is_async(func: &Func, diag: &Diag) -> bool {
    if func.sig.asyncness.is_some() {
        return true;
    }
    if returns_boxed_future(func) {
        let message = "`#[async_trait]` has already rewritten this method; put `#[effectively::handlers(from = self.ledger)]` above it on the `impl`";
        diag.at(&func.sig.ident, message);
    } else {
        diag.at(func.sig.fn_token, "a handler is an `async fn`");
    }
    false
}

/// What `#[async_trait]` makes of an `async fn`.
pub(super) fn returns_boxed_future(func: &Func) -> bool {
    let names = idents(func.sig.output.to_token_stream());
    func.sig.asyncness.is_none()
        && ["Pin", "Future"]
            .iter()
            .all(|part| names.iter().any(|name| name == part))
}

/// `async fn f(cmd: Cmd)`, `async fn f(cmd: Cmd, tx: &mut PgConnection)`
pub(super) fn no_tx<'a>(func: &'a Func, diag: &Diag) -> Option<Tx<'a>> {
    // With a method that `#[async_trait]` rewrote, that is the mistake to report.
    func.sig.asyncness?;
    let message = "the first parameter is the transaction: `tx: &mut PgConnection`, `&mut MySqlConnection` or `&mut SqliteConnection`";
    match (connection(func), first_parameter(func)) {
        (Some(later), _) => diag.at(
            later,
            "the transaction must be the first parameter, after `self`",
        ),
        (None, Some((_, first))) => diag.at(&first.ty, message),
        (None, None) => diag.at(&func.sig.ident, message),
    }
    None
}

/// A parameter that looks like the transaction. Only the message depends on it.
fn connection(func: &Func) -> Option<&FnArg> {
    func.sig.inputs.iter().find(|input| match input {
        FnArg::Typed(parameter) => match bare(&parameter.ty) {
            Type::Reference(TypeReference {
                mutability: Some(_),
                elem,
                ..
            }) => elem.to_token_stream().to_string().ends_with("Connection"),
            _ => false,
        },
        FnArg::Receiver(_) => false,
    })
}

/// `async fn f(tx: …)`, `async fn f(tx: …) -> impl IntoResponse`
pub(super) fn returns<'a>(func: &'a Func, diag: &Diag) -> Option<&'a Type> {
    func.sig.asyncness?;
    let Some(ty) = return_type(func) else {
        diag.at(
            &func.sig.ident,
            "a handler returns `Result<T, E>`: the toolkit commits on `Ok` and rolls back on `Err`",
        );
        return None;
    };
    let mut opaque = FindOpaque(false);
    opaque.visit_type_mut(&mut ty.clone());
    if opaque.0 {
        diag.at(ty, "`impl Trait` cannot be recorded and read back; name the type, for example `Result<Json<Receipt>, AppError>`");
        return None;
    }
    Some(ty)
}

struct FindOpaque(bool);

impl VisitMut for FindOpaque {
    fn visit_type_impl_trait_mut(&mut self, _: &mut TypeImplTrait) {
        self.0 = true;
    }
}

/// `key = "orders"`, `key = "{odrer.id}"`, `key = "{tx}"`
pub(super) fn template(
    args: &Args,
    template: &Template,
    tx: Option<&Tx>,
    bindings: &Bindings,
    diag: &Diag,
) {
    for path in template.paths() {
        if let Some(name) = &path.head {
            known(name, path.span, "to build the key from", tx, bindings, diag);
        }
    }
    if let (None, Some(text)) = (template.paths().next(), args.key.value()) {
        diag.at(&text.0, "the key is constant, so every call would share it; add what tells calls apart: `{cmd.order_id}`");
    }
}

/// `fingerprint(odrer)`, `fingerprint(1 + 1)`
pub(super) fn fingerprint(
    paths: &[Expr],
    tx: Option<&Tx>,
    bindings: &Bindings,
    diag: &Diag,
) -> bool {
    let before = diag.len();
    for path in paths {
        match value_path::head(path) {
            Some(name) => known(
                &name,
                syn::spanned::Spanned::span(path),
                "to fingerprint",
                tx,
                bindings,
                diag,
            ),
            None => diag.at(
                path,
                "a fingerprint is made of parameters and their fields: `fingerprint(cmd, user.id)`",
            ),
        }
    }
    diag.len() == before
}

fn known(name: &str, span: Span, purpose: &str, tx: Option<&Tx>, bindings: &Bindings, diag: &Diag) {
    if bindings.span(name).is_some() {
        return;
    }
    let is_tx = tx.is_some_and(|tx| {
        tx.pattern
            .to_token_stream()
            .into_iter()
            .any(|token| token.to_string().trim_start_matches("r#") == name)
    });
    if is_tx {
        return diag.at_span(span, format!("`{name}` is the transaction, which is not open yet; name another parameter {purpose}"));
    }
    let names = bindings.list();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    diag.at_span(
        span,
        format!(
            "no parameter `{name}` {purpose}{}",
            instead(name, "the parameters", &names)
        ),
    );
}

/// The default of `scope`. Never a module path: moving code must not change what is stored.
pub(super) fn default_scope(func: &Func) -> String {
    func.sig
        .ident
        .to_string()
        .trim_start_matches("r#")
        .to_owned()
}

/// `async fn f<T>(…)` and `async fn größe(…)` without `scope`
fn scope(func: &Func, args: &Args, tx: Option<&Tx>, diag: &Diag) {
    if args.scope.span().is_some() {
        return;
    }
    if scope_problem(&default_scope(func)).is_some() {
        let message = "this name cannot be the scope, which is at most 64 of `A-Z a-z 0-9 . _ -`; give one: `scope = \"orders.place\"`";
        diag.at(&func.sig.ident, message);
    }
    if let Some(generic) = tx.and_then(|tx| generic(func, tx)) {
        let message = "all types of this parameter would share their keys; say so with `scope = \"…\"`, and add the type to the key if they must not";
        diag.at(generic, message);
    }
}

/// A type or constant that the function is generic over, besides its connection.
fn generic(func: &Func, tx: &Tx) -> Option<Box<dyn ToTokens>> {
    let connection = idents(tx.connection.to_token_stream());
    for parameter in &func.sig.generics.params {
        match parameter {
            GenericParam::Type(ty) if !connection.contains(&ty.ident.to_string()) => {
                return Some(Box::new(ty.ident.clone()));
            }
            GenericParam::Const(constant) => return Some(Box::new(constant.ident.clone())),
            _ => {}
        }
    }
    parameters(func).find_map(|ty| {
        let mut opaque = FindOpaque(false);
        opaque.visit_type_mut(&mut ty.clone());
        opaque.0.then(|| Box::new(ty.clone()) as Box<dyn ToTokens>)
    })
}

fn idents(tokens: proc_macro2::TokenStream) -> Vec<String> {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            proc_macro2::TokenTree::Ident(ident) => vec![ident.to_string()],
            proc_macro2::TokenTree::Group(group) => idents(group.stream()),
            _ => Vec::new(),
        })
        .collect()
}

/// `detach` with `&self` or `name: &str`
pub(super) fn detach(func: &Func, args: &Args, tx: Option<&Tx>, diag: &Diag) -> bool {
    let before = diag.len();
    if args.detach.span().is_none() {
        return false;
    }
    if let Some(receiver) =
        receiver(func).filter(|receiver| !matches!(receiver.kind, ReceiverKind::Value))
    {
        diag.at(receiver, "`detach` runs the call in its own task, which cannot borrow `self`; take `self` by value, or write a free function");
    }
    for (index, input) in func.sig.inputs.iter().enumerate() {
        let FnArg::Typed(parameter) = input else {
            continue;
        };
        let mut borrow = FindBorrow(false);
        borrow.visit_type_mut(&mut parameter.ty.clone());
        if borrow.0 && tx.is_none_or(|tx| tx.index != index) {
            diag.at(parameter, "`detach` runs the call in its own task, which cannot borrow an argument; take it by value, for example as `String` or `Arc<…>`");
        }
    }
    diag.len() == before
}

struct FindBorrow(bool);

impl VisitMut for FindBorrow {
    fn visit_type_reference_mut(&mut self, reference: &mut TypeReference) {
        self.0 |= reference
            .lifetime
            .as_ref()
            .is_none_or(|lifetime| lifetime.ident != "static");
        visit_mut::visit_type_reference_mut(self, reference);
    }

    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        self.0 |= lifetime.ident != "static";
    }
}

/// `retries` with `self` or `&mut self`
fn retries(func: &Func, args: &Args, diag: &Diag) {
    let (Some(_), Some(receiver)) = (args.retries.span(), receiver(func)) else {
        return;
    };
    let shared = matches!(&receiver.kind, ReceiverKind::Reference(_, _, None));
    if !shared {
        diag.at(
            receiver,
            "`retries` runs the body again, so a method must take `&self`",
        );
    }
}

/// `async fn f(tx: …, http: reqwest::Client)`
fn outside_calls(func: &Func, args: &Args, diag: &Diag) {
    if args.outside_calls.span().is_some() {
        return;
    }
    for client in parameters(func).flat_map(outside::clients) {
        let message = "a call to another service would run inside the open transaction and again on every retry; return an event and make the call after the commit, or say why it is safe: `outside_calls = \"reason\"`";
        diag.at(client, message);
    }
}

/// `from = self.ledger` on a function without `self`
fn from(func: &Func, args: &Args, diag: &Diag) {
    let Some(source) = args.from.value() else {
        return;
    };
    if value_path::head(&source.0).is_some_and(|name| name == "self") && receiver(func).is_none() {
        diag.at(&source.0, "there is no `self` here; leave `from` out, then the ledger takes the place of `tx` among the parameters");
    }
}

fn parameters(func: &Func) -> impl Iterator<Item = &Type> {
    func.sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(parameter) => Some(&*parameter.ty),
        FnArg::Receiver(_) => None,
    })
}

fn receiver(func: &Func) -> Option<&Receiver> {
    func.sig.inputs.iter().find_map(|input| match input {
        FnArg::Receiver(receiver) => Some(receiver),
        FnArg::Typed(_) => None,
    })
}

/// Whether the other attribute has already rewritten this function without seeing this one.
pub(super) fn is_rewritten(func: &Func) -> bool {
    let returned = return_type(func)
        .map(|ty| idents(ty.to_token_stream()))
        .unwrap_or_default();
    let first = first_parameter(func)
        .map(|(_, parameter)| idents(parameter.ty.to_token_stream()))
        .unwrap_or_default();
    returned.iter().any(|name| name == "__private")
        || ["Ledger", "TxParam", "Db"]
            .iter()
            .all(|part| first.iter().any(|name| name == part))
}

/// `use effectively::outbox as send;` with `#[idempotent(…)] #[send]`
pub(super) fn renamed_sibling(stack: &Stack, diag: &Diag) {
    let (this, other) = if stack.outbox.is_some() {
        ("outbox", "#[idempotent]")
    } else {
        ("idempotent", "#[outbox]")
    };
    let message = format!(
        "`{other}` above could not see this attribute, because it is imported under another name; import it as `{this}`"
    );
    diag.at_span(Span::call_site(), message);
}
