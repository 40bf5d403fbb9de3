//! How the program ends.

use std::{error::Error as _, fmt, io, process::ExitCode};

use effectively::{Error, ErrorKind};

use crate::output;

/// An end that is no failure of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Fine,
    /// What was looked for was found, or not found. It has been said.
    Findings,
    /// The same, and the tables are the reason.
    Tables,
}

#[derive(Debug)]
pub(crate) enum Failure {
    Failed(String),
    /// Of the command line or of the configuration.
    Usage(String),
    Unreachable(String),
    Tables(String),
    /// Nobody reads stdout any more.
    Closed,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message)
            | Self::Usage(message)
            | Self::Unreachable(message)
            | Self::Tables(message) => f.write_str(message),
            Self::Closed => f.write_str("nobody reads the output any more"),
        }
    }
}

pub(crate) fn exit_code(end: Result<End, Failure>) -> ExitCode {
    let (code, message) = match end {
        Ok(End::Fine) | Err(Failure::Closed) => (0, None),
        Ok(End::Findings) => (1, None),
        Ok(End::Tables) => (4, None),
        Err(Failure::Failed(message)) => (1, Some(message)),
        Err(Failure::Usage(message)) => (2, Some(message)),
        Err(Failure::Unreachable(message)) => (3, Some(message)),
        Err(Failure::Tables(message)) => (4, Some(message)),
    };
    if let Some(message) = message {
        output::say(&format!("error: {message}"));
    }
    ExitCode::from(code)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            message = format!("{message}: {source}");
            cause = source.source();
        }
        match error.kind() {
            ErrorKind::Unavailable => Self::Unreachable(message),
            // In place of the library's advice: how to do it here.
            ErrorKind::TablesMissing => Self::Tables(
                "the tables of the toolkit are missing in this database; run `effectively migrate`"
                    .to_owned(),
            ),
            ErrorKind::SchemaVersion { found, needed } => Self::Tables(format!(
                "the tables of the toolkit are at version {found}, this program needs {needed}; run `effectively migrate`"
            )),
            ErrorKind::Settings(_) | ErrorKind::KeyInvalid(_) | ErrorKind::ScopeInvalid => {
                Self::Usage(message)
            }
            _ => Self::Failed(message),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(format!("stdout: {error}")),
        }
    }
}
