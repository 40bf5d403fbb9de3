//! Topics of routes as conditions. What routes are called travels as hex or as a bound value: it is settings, and may hold any character.

use crate::model::Pattern;
#[cfg(any(feature = "mysql", feature = "sqlite"))]
use std::fmt::Write;

/// What LIKE takes, with its own escape character.
#[cfg(feature = "postgres")]
pub(super) fn like(pattern: &Pattern) -> String {
    let mut like = String::new();
    for character in pattern.text().chars() {
        if matches!(character, '\\' | '%' | '_') {
            like.push('\\');
        }
        like.push(character);
    }
    if pattern.is_prefix() {
        like.push('%');
    }
    like
}

/// The place of the first pattern that takes the topic in `column`; null without one. `text` makes a literal of hex digits.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(super) fn place<'a>(
    column: &str,
    patterns: impl IntoIterator<Item = &'a Pattern>,
    text: fn(&str) -> String,
) -> String {
    let arms = patterns.into_iter().enumerate();
    case(
        column,
        arms.map(|(place, pattern)| (pattern, place)),
        text,
        "NULL",
    )
}

/// Whether the topic in `column` is readable: 1 or 0. The first pattern that takes it says so.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(super) fn readable(
    column: &str,
    patterns: &[(Pattern, bool)],
    text: fn(&str) -> String,
) -> String {
    let arms = patterns.iter();
    case(
        column,
        arms.map(|(pattern, may)| (pattern, usize::from(*may))),
        text,
        "0",
    )
}

#[cfg(any(feature = "mysql", feature = "sqlite"))]
fn case<'a>(
    column: &str,
    arms: impl Iterator<Item = (&'a Pattern, usize)>,
    text: fn(&str) -> String,
    otherwise: &str,
) -> String {
    let mut case = "CASE".to_owned();
    for (pattern, value) in arms {
        let literal = text(&super::hex::Hex(pattern.text().as_bytes()).to_string());
        let length = pattern.text().chars().count();
        // Writing to a String does not fail.
        let _ = match (pattern.is_prefix(), length) {
            (true, 0) => write!(case, " WHEN 1 = 1 THEN {value}"),
            (true, _) => write!(
                case,
                " WHEN SUBSTR({column}, 1, {length}) = {literal} THEN {value}"
            ),
            (false, _) => write!(case, " WHEN {column} = {literal} THEN {value}"),
        };
    }
    case + " ELSE " + otherwise + " END"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "postgres")]
    fn what_like_would_read_as_a_sign_is_escaped() {
        let like = |pattern: &str| like(&Pattern::new(pattern).unwrap());
        assert_eq!(like("a%b_c\\d"), "a\\%b\\_c\\\\d");
        assert_eq!(like("mail.*"), "mail.%");
        assert_eq!(like("*"), "%");
    }

    #[test]
    #[cfg(any(feature = "mysql", feature = "sqlite"))]
    fn the_first_pattern_that_takes_a_topic_is_asked_first() {
        let [mail, all] = ["mail.*", "*"].map(|pattern| Pattern::new(pattern).unwrap());
        let text: fn(&str) -> String = |hex| format!("x'{hex}'");
        assert_eq!(
            place("o.topic", [&mail, &all], text),
            "CASE WHEN SUBSTR(o.topic, 1, 5) = x'6d61696c2e' THEN 0 WHEN 1 = 1 THEN 1 ELSE NULL END"
        );
        assert_eq!(
            readable("o.topic", &[(all, false), (mail, true)], text),
            "CASE WHEN 1 = 1 THEN 0 WHEN SUBSTR(o.topic, 1, 5) = x'6d61696c2e' THEN 1 ELSE 0 END"
        );
    }
}
