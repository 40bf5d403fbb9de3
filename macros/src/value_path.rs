//! Paths to values: a name, then fields, indexes and methods without arguments.

use std::borrow::Cow;

use proc_macro2::Ident;
use syn::{Expr, Member, ext::IdentExt};

/// Whether it is words between dots. What nests, as `((((a`, must not come to syn: it would use up the compiler's stack.
pub(crate) fn may_be_path(text: &str) -> bool {
    text.split('.').all(|step| {
        let name = step
            .trim_end()
            .strip_suffix(')')
            .and_then(|open| open.trim_end().strip_suffix('('));
        let name = name.unwrap_or(step).trim();
        let in_word =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '#') || !c.is_ascii();
        !name.is_empty() && name.chars().all(|c| in_word(c) && !c.is_whitespace())
    })
}

/// `type` stands for `r#type`, as in `format!("{type}")`. After a dot `await` does not: whoever writes it means to wait.
pub(crate) fn with_raw_keywords(path: &str) -> String {
    let steps = path.split('.').enumerate().map(|(place, step)| {
        let word = step.trim_start();
        let is_in_name = |c: char| c.is_alphanumeric() || c == '_';
        let name = word.split(|c| !is_in_name(c)).next().unwrap_or_default();
        let is_keyword = name.starts_with(char::is_alphabetic)
            && !matches!(name, "self" | "Self" | "super" | "crate")
            && (name != "await" || place == 0)
            && syn::parse_str::<Ident>(name).is_err();
        if is_keyword {
            Cow::Owned(format!("r#{word}"))
        } else {
            Cow::Borrowed(step)
        }
    });
    steps.collect::<Vec<_>>().join(".")
}

/// How a path begins.
pub(crate) struct Start {
    pub(crate) name: String,
    pub(crate) next: Option<Next>,
}

pub(crate) enum Next {
    Field(String),
    Method,
}

impl Next {
    pub(crate) fn field(self) -> Option<String> {
        match self {
            Self::Field(name) => Some(name),
            Self::Method => None,
        }
    }
}

/// `None` for anything but names, fields, indexes and methods without arguments.
pub(crate) fn start(path: &Expr) -> Option<Start> {
    let (base, next) = match path {
        Expr::Path(name) => {
            return name.path.get_ident().map(|name| Start {
                name: name.unraw().to_string(),
                next: None,
            });
        }
        Expr::Field(field) => (&field.base, Next::Field(member(&field.member))),
        Expr::MethodCall(call) if call.args.is_empty() && call.turbofish.is_none() => {
            (&call.receiver, Next::Method)
        }
        _ => return None,
    };
    let start = start(base)?;
    Some(Start {
        next: start.next.or(Some(next)),
        ..start
    })
}

/// The name that a path of real tokens begins with, by the same rules.
pub(crate) fn head(path: &Expr) -> Option<String> {
    start(path).map(|start| start.name)
}

/// A field's name, without `r#`, or its number.
pub(crate) fn member(member: &Member) -> String {
    match member {
        Member::Named(name) => name.unraw().to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    }
}
