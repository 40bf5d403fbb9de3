//! A file of configuration, and what is wrong in it.

use std::{borrow::Cow, fmt::Display, fs, ops::Range, path::Path};

use crate::failure::Failure;

/// A file and its text.
#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    pub(super) text: String,
}

impl Source {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => Ok(Self { name, text }),
            Err(error) => Err(Failure::Usage(format!("{name}: {error}"))),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What is wrong at a place, and what is right there.
    pub(crate) fn wrong(&self, place: &Range<usize>, message: impl Display) -> Failure {
        let before = self.text.get(..place.start).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before
            .chars()
            .rev()
            .take_while(|letter| *letter != '\n')
            .count()
            + 1;
        Failure::Usage(format!("{}:{line}:{column}: {message}", self.name))
    }

    pub(super) fn wrong_toml(&self, error: &toml::de::Error, around: &Range<usize>) -> Failure {
        let place = error.span().unwrap_or_else(|| around.clone());
        self.wrong(&place, without_values(error.message()))
    }
}

/// A value in the file may be a secret, also one in the wrong place: serde's messages quote it.
fn without_values(message: &str) -> Cow<'_, str> {
    match (message.find("string \""), message.rfind("\", expected")) {
        (Some(start), Some(end)) if start < end => {
            format!("{}text{}", &message[..start], &message[end + 1..]).into()
        }
        _ => message.into(),
    }
}
