//! The values of options, each checked where it is parsed.

use std::time::Duration;

use syn::{
    Expr, LitInt, LitStr, Path, Token, parenthesized,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
};

use crate::{diag::instead, slot::Value};

const MAX_SCOPE_BYTES: usize = 64;
const MAX_WAIT: Duration = Duration::from_secs(60);
const MAX_RETRIES: u8 = 100;

/// `= "…"`, any text.
#[derive(Clone)]
pub(crate) struct Text(pub(crate) LitStr);

impl Value for Text {
    fn parse(input: ParseStream, form: &str) -> syn::Result<Self> {
        assigned(input, form).map(Self)
    }
}

/// `= "…"`, not empty.
pub(crate) struct Name(pub(crate) LitStr);

impl Value for Name {
    fn parse(input: ParseStream, form: &str) -> syn::Result<Self> {
        let name: LitStr = assigned(input, form)?;
        let allowed = |c: char| !c.is_control() && !c.is_whitespace();
        if name.value().is_empty() || !name.value().chars().all(allowed) {
            return Err(syn::Error::new_spanned(
                &name,
                format!("a name must not be empty or hold spaces: `{form}`"),
            ));
        }
        Ok(Self(name))
    }
}

/// `scope = "…"`.
pub(crate) struct ScopeName(pub(crate) String);

impl Value for ScopeName {
    fn parse(input: ParseStream, form: &str) -> syn::Result<Self> {
        let name: LitStr = assigned(input, form)?;
        scope_problem(&name.value()).map_or_else(
            || Ok(Self(name.value())),
            |problem| Err(syn::Error::new_spanned(&name, problem)),
        )
    }
}

/// Which rule a scope breaks.
pub(crate) fn scope_problem(name: &str) -> Option<String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() {
        Some("a scope must not be empty; leave `scope` out to use the function's name".to_owned())
    } else if name.len() > MAX_SCOPE_BYTES {
        Some(format!(
            "a scope has at most {MAX_SCOPE_BYTES} bytes, this one has {}",
            name.len()
        ))
    } else if !name.bytes().all(allowed) {
        Some(
            "a scope is made of `A-Z a-z 0-9 . _ -` only, for example `scope = \"orders.place\"`"
                .to_owned(),
        )
    } else {
        None
    }
}

/// `fingerprint(cmd, other.field)`.
pub(crate) struct Paths(pub(crate) Vec<Expr>);

impl Value for Paths {
    fn parse(input: ParseStream, form: &str) -> syn::Result<Self> {
        let wrong = || input.error(format!("name the parameters in parentheses: `{form}`"));
        if !input.peek(syn::token::Paren) {
            return Err(wrong());
        }
        let list;
        let parens = parenthesized!(list in input);
        let paths = Punctuated::<Expr, Token![,]>::parse_terminated(&list)?;
        if paths.is_empty() {
            return Err(syn::Error::new(
                parens.span.join(),
                format!("name at least one parameter: `{form}`"),
            ));
        }
        Ok(Self(paths.into_iter().collect()))
    }
}

/// `retention = "24h"`.
pub(crate) struct Retention(pub(crate) Duration);

impl Value for Retention {
    fn parse(input: ParseStream, form: &str) -> syn::Result<Self> {
        let text: LitStr = assigned(input, form)?;
        let retention = duration(&text)?;
        if retention.is_zero() {
            return Err(syn::Error::new_spanned(
                &text,
                "a retention of zero would keep no outcome, and every retry would run again",
            ));
        }
        Ok(Self(retention))
    }
}

/// `wait = "5s"`.
pub(crate) struct Wait(pub(crate) Duration);

impl Value for Wait {
    fn parse(input: ParseStream, form: &str) -> syn::Result<Self> {
        let text: LitStr = assigned(input, form)?;
        let wait = duration(&text)?;
        if wait > MAX_WAIT {
            return Err(syn::Error::new_spanned(
                &text,
                "a duplicate waits at most a minute, for example `wait = \"5s\"`; `\"0s\"` answers 409 at once",
            ));
        }
        Ok(Self(wait))
    }
}

/// A number and one of `ms s m h d`.
fn duration(text: &LitStr) -> syn::Result<Duration> {
    let value = text.value();
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let wrong = || {
        syn::Error::new_spanned(
            text,
            "a duration is a number and a unit out of `ms`, `s`, `m`, `h`, `d`, for example \"24h\" or \"500ms\"",
        )
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return Err(wrong()),
    };
    // A century is enough for anybody, and far from any database's limit.
    match number.checked_mul(millis) {
        Some(millis) if millis <= 100 * 366 * 24 * 60 * 60 * 1000 => {
            Ok(Duration::from_millis(millis))
        }
        _ => Err(syn::Error::new_spanned(
            text,
            "a duration is at most 100 years",
        )),
    }
}

/// `on_error = "release" | "record"`, as the runtime's names.
pub(crate) struct OnError(pub(crate) &'static str);

impl Value for OnError {
    fn parse(input: ParseStream, form: &str) -> syn::Result<Self> {
        word(input, form, &[("release", "Release"), ("record", "Record")]).map(Self)
    }
}

/// `isolation = "serializable"`, as the runtime's names.
pub(crate) struct Isolation(pub(crate) &'static str);

impl Value for Isolation {
    fn parse(input: ParseStream, form: &str) -> syn::Result<Self> {
        let levels = [
            ("read committed", "ReadCommitted"),
            ("repeatable read", "RepeatableRead"),
            ("serializable", "Serializable"),
        ];
        word(input, form, &levels).map(Self)
    }
}

fn word(
    input: ParseStream,
    form: &str,
    words: &[(&str, &'static str)],
) -> syn::Result<&'static str> {
    let text: LitStr = assigned(input, form)?;
    let value = text.value();
    if let Some((_, name)) = words.iter().find(|(word, _)| *word == value) {
        return Ok(name);
    }
    let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    Err(syn::Error::new_spanned(
        &text,
        format!(
            "unknown value `{value}`{}",
            instead(&value, "the values", &known)
        ),
    ))
}

/// `retries = 3`.
pub(crate) struct Retries(pub(crate) u8);

impl Value for Retries {
    fn parse(input: ParseStream, form: &str) -> syn::Result<Self> {
        let number: LitInt = assigned(input, form)?;
        match number.base10_parse() {
            Ok(retries @ 1..=MAX_RETRIES) => Ok(Self(retries)),
            _ => Err(syn::Error::new_spanned(
                &number,
                format!("`retries` is 1 to {MAX_RETRIES}; leave it out to run the body once"),
            )),
        }
    }
}

/// An option without a value.
pub(crate) struct Flag;

impl Value for Flag {
    fn parse(input: ParseStream, form: &str) -> syn::Result<Self> {
        if input.is_empty() || input.peek(Token![,]) {
            Ok(Self)
        } else {
            Err(input.error(format!("`{form}` takes no value")))
        }
    }
}

/// `outside_calls = "reason"`.
pub(crate) struct Reason;

impl Value for Reason {
    fn parse(input: ParseStream, form: &str) -> syn::Result<Self> {
        let reason: LitStr = assigned(input, form)?;
        if reason.value().trim().is_empty() {
            return Err(syn::Error::new_spanned(
                &reason,
                format!("say why an outside call is safe here: `{form}`"),
            ));
        }
        Ok(Self)
    }
}

/// `from = self.ledger`.
#[derive(Clone)]
pub(crate) struct Source(pub(crate) Expr);

impl Value for Source {
    fn parse(input: ParseStream, form: &str) -> syn::Result<Self> {
        assigned(input, form).map(Self)
    }
}

/// `crate = path::to::effectively`.
#[derive(Clone)]
pub(crate) struct Runtime(pub(crate) Path);

impl Value for Runtime {
    fn parse(input: ParseStream, form: &str) -> syn::Result<Self> {
        assigned(input, form).map(Self)
    }
}

fn assigned<T: Parse>(input: ParseStream, form: &str) -> syn::Result<T> {
    let written = |mistake: syn::Error| {
        syn::Error::new(mistake.span(), format!("this option is written `{form}`"))
    };
    input.parse::<Token![=]>().map_err(written)?;
    input.parse::<T>().map_err(written)
}
