//! The two attributes of one function, whichever stands first.

use proc_macro2::{Span, TokenStream};
use syn::{Attribute, Meta, parse_quote};

use super::Args;
use crate::{diag::Diag, options};

const DONE: &str = "__done";

/// One of the two attributes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attr {
    Idempotent,
    Outbox,
}

impl Attr {
    /// Recognised by its last path segment: a macro cannot see what an import renames.
    pub(crate) fn of(attribute: &Attribute) -> Option<Self> {
        match attribute.path().segments.last()?.ident.to_string().as_str() {
            "idempotent" => Some(Self::Idempotent),
            "outbox" => Some(Self::Outbox),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idempotent => "#[idempotent]",
            Self::Outbox => "#[outbox]",
        }
    }
}

/// Both attributes, read.
pub(crate) struct Stack {
    pub(crate) args: Args,
    /// Where `#[idempotent]` stands.
    pub(crate) idempotent: Option<Span>,
    /// Where `#[outbox]` stands.
    pub(crate) outbox: Option<Span>,
    /// Whether every option has a known name.
    pub(crate) understood: bool,
}

impl Stack {
    /// Reads the attribute that is being expanded, absorbs the other one, and leaves that one in place as done.
    pub(super) fn read(
        attr: Attr,
        args: TokenStream,
        others: &mut [Attribute],
        outer: &Args,
        diag: &Diag,
    ) -> Self {
        let mut stack = Self {
            args: Args::new(),
            idempotent: None,
            outbox: None,
            understood: true,
        };
        stack.take(attr, args, Span::call_site(), diag);
        for other in others {
            let Some(attr) = Attr::of(other).filter(|_| !has_done(other)) else {
                continue;
            };
            if stack.has(attr) {
                diag.at(
                    &*other,
                    format!("`{}` is given twice; keep one", attr.name()),
                );
            } else {
                let span = other
                    .path()
                    .segments
                    .last()
                    .map_or_else(Span::call_site, |last| last.ident.span());
                stack.take(attr, absorbed(other, diag), span, diag);
            }
            mark_done(other);
        }
        stack.args.inherit(outer);
        stack
    }

    fn has(&self, attr: Attr) -> bool {
        match attr {
            Attr::Idempotent => self.idempotent.is_some(),
            Attr::Outbox => self.outbox.is_some(),
        }
    }

    fn take(&mut self, attr: Attr, args: TokenStream, span: Span, diag: &Diag) {
        match attr {
            Attr::Idempotent => {
                self.idempotent = Some(span);
                self.understood &= options::read(args, &mut self.args.idempotent(), |_| None, diag);
            }
            Attr::Outbox => {
                self.outbox = Some(span);
                let mut all = Args::new();
                let names = all.idempotent().map(|slot| slot.name());
                let moved = |name: &str| names.contains(&name).then_some("`#[idempotent]`");
                self.understood &= options::read(args, &mut self.args.outbox(), moved, diag);
            }
        }
    }
}

/// The arguments of an attribute that is absorbed.
fn absorbed(attribute: &Attribute, diag: &Diag) -> TokenStream {
    match &attribute.meta {
        Meta::Path(_) => TokenStream::new(),
        Meta::List(list) => list.tokens.clone(),
        Meta::NameValue(_) => {
            diag.at(
                attribute,
                "options stand in parentheses: `#[idempotent(key = \"order:{cmd.order_id}\")]`",
            );
            TokenStream::new()
        }
    }
}

/// Keeps the attribute, so that its import stays in use and other attributes keep their place.
pub(crate) fn mark_done(attribute: &mut Attribute) {
    let path = attribute.path().clone();
    let done = proc_macro2::Ident::new(DONE, Span::call_site());
    attribute.meta = parse_quote!(#path(#done));
}

fn has_done(attribute: &Attribute) -> bool {
    matches!(&attribute.meta, Meta::List(list) if is_done(&list.tokens))
}

/// Whether the function was rewritten when the other attribute was expanded.
pub(super) fn is_done(args: &TokenStream) -> bool {
    args.to_string() == DONE
}
