//! Secrets stay out of the file: `${NAME}` stands for a variable of the environment.

use std::{borrow::Cow, env};

use toml::{Spanned, de::DeValue};

use super::Source;
use crate::failure::Failure;

/// Puts the values of the environment in the place of `${NAME}`, in every text at or below this value.
pub(super) fn fill_in(source: &Source, value: &mut Spanned<DeValue<'_>>) -> Result<(), Failure> {
    let place = value.span();
    match value.get_mut() {
        DeValue::String(text) if text.contains("${") => {
            let filled = filled(text).map_err(|message| source.wrong(&place, message))?;
            *text = Cow::Owned(filled);
        }
        DeValue::Array(values) => {
            for value in values.iter_mut() {
                fill_in(source, value)?;
            }
        }
        DeValue::Table(table) => {
            for (_, value) in table.iter_mut() {
                fill_in(source, value)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// `$${` stands for `${` itself.
fn filled(text: &str) -> Result<String, String> {
    let (mut filled, mut rest) = (String::new(), text);
    while let Some(start) = rest.find("${") {
        if let Some(before) = rest[..start].strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        filled.push_str(&rest[..start]);
        let name = rest[start + 2..].split_once('}');
        let (name, tail) =
            name.ok_or("`${` without `}`; write `$${` for the characters themselves")?;
        let value = env::var(name);
        filled.push_str(&value.map_err(|_| format!("the environment variable {name} is not set"))?);
        rest = tail;
    }
    filled.push_str(rest);
    Ok(filled)
}
