//! The loop that reads the options of an attribute: `name = value`, `name(…)` or `name`, separated by commas.

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::{
    Token,
    ext::IdentExt,
    parse::{ParseStream, Parser},
};

use crate::{
    diag::{Diag, instead},
    slot::Read,
};

/// Reads options into their slots. A mistake in one does not hide those in the next. Answers whether every name is known:
/// if not, it may be what a missing option was meant to be.
///
/// `moved` names the attribute that an option belongs to when it is not one of these.
pub(crate) fn read(
    tokens: TokenStream,
    slots: &mut [&mut dyn Read],
    moved: impl Fn(&str) -> Option<&'static str>,
    diag: &Diag,
) -> bool {
    let mut understood = true;
    let all = |input: ParseStream| {
        while !input.is_empty() {
            let before = diag.len();
            understood &= one(input, slots, &moved, diag);
            // Junk after an option that is itself reported would be a second message for one mistake.
            if diag.len() == before && !input.is_empty() && !input.peek(Token![,]) {
                diag.push(input.error("expected `,` between options"));
            }
            skip(input);
            input.parse::<Option<Token![,]>>()?;
        }
        Ok(())
    };
    if let Err(mistake) = all.parse2(tokens) {
        diag.push(mistake);
    }
    understood
}

fn one(
    input: ParseStream,
    slots: &mut [&mut dyn Read],
    moved: impl Fn(&str) -> Option<&'static str>,
    diag: &Diag,
) -> bool {
    let Ok(name) = input.call(Ident::parse_any) else {
        let known = slots
            .iter()
            .map(|slot| slot.name())
            .next()
            .unwrap_or_default();
        diag.push(input.error(format!(
            "expected the name of an option, for example `{known} = …`"
        )));
        return false;
    };
    let text = name.to_string();
    if let Some(slot) = slots.iter_mut().find(|slot| slot.name() == text) {
        slot.read(&name, input, diag);
        return true;
    }
    let message = match moved(&text) {
        Some(attribute) => format!("`{text}` is an option of {attribute}; write it there"),
        None => {
            let known: Vec<_> = slots.iter().map(|slot| slot.name()).collect();
            format!(
                "unknown option `{text}`{}",
                instead(&text, "the options", &known)
            )
        }
    };
    diag.at(&name, message);
    false
}

fn skip(input: ParseStream) {
    while !input.is_empty() && !input.peek(Token![,]) {
        if input.parse::<TokenTree>().is_err() {
            return;
        }
    }
}
