//! Topics as routes name them.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// A topic, or the beginning of topics: `orders`, `mail.*`, `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: String,
    prefix: bool,
}

impl Pattern {
    /// # Errors
    /// [`ErrorKind::Settings`] when it is empty or has a `*` before its end.
    pub(crate) fn new(pattern: &str) -> Result<Self, Error> {
        let (text, prefix) = match pattern.strip_suffix('*') {
            Some(text) => (text, true),
            None => (pattern, false),
        };
        if text.contains('*') || (text.is_empty() && !prefix) {
            return Err(ErrorKind::Settings(
                "a route is a topic, or the beginning of topics followed by one `*` at its end",
            )
            .into());
        }
        Ok(Self {
            text: text.to_owned(),
            prefix,
        })
    }

    /// Every topic.
    pub(crate) fn all() -> Self {
        Self {
            text: String::new(),
            prefix: true,
        }
    }

    /// The topic, or its beginning.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is only the beginning of topics.
    pub(crate) fn is_prefix(&self) -> bool {
        self.prefix
    }

    pub(crate) fn matches(&self, topic: &str) -> bool {
        if self.prefix {
            topic.starts_with(&self.text)
        } else {
            topic == self.text
        }
    }

    /// Whether a topic is of both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self.prefix, other.prefix) {
            (true, true) => {
                self.text.starts_with(&other.text) || other.text.starts_with(&self.text)
            }
            (true, false) => self.matches(&other.text),
            (false, _) => other.matches(&self.text),
        }
    }

    /// Longer is more exact; a whole topic is more exact than any beginning.
    pub(crate) fn rank(&self) -> (bool, usize) {
        (!self.prefix, self.text.len())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.prefix { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_a_topic_or_a_beginning() {
        let matches = |pattern: &str, topic| Pattern::new(pattern).unwrap().matches(topic);
        assert!(matches("orders", "orders") && !matches("orders", "orders.eu"));
        assert!(matches("mail.*", "mail.sent") && !matches("mail.*", "mails"));
        assert!(matches("*", "anything"));
        for bad in ["", "a*b", "**"] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
    }
}
