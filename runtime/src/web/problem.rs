//! The toolkit's errors as RFC 9457 problem+json.

use serde::Serialize;

use super::Contract;
use crate::error::{Error, ErrorKind};

/// The media type of [`Problem`].
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// The problem document. It holds no key, no payload and, above 499, nothing about the server's inside.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: String,
    code: &'static str,
}

impl Problem {
    pub(crate) fn of(error: &Error) -> Self {
        let contract = Contract::current();
        Self {
            r#type: contract.page_of(error),
            title: title(error.kind()),
            status: contract.status_of(error),
            detail: detail(error),
            code: error.code(),
        }
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// As bytes. It is made of text only, so it can always be written.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The `Link` header that section 2.7 of the draft asks for, to the page that describes the problem.
    pub(crate) fn link(&self) -> String {
        format!("<{}>; rel=\"describedby\"; type=\"text/html\"", self.r#type)
    }
}

/// Seconds for `Retry-After`, at least one.
pub(crate) fn retry_after_seconds(error: &Error) -> Option<u64> {
    error.retry_after().map(|wait| wait.as_secs().max(1))
}

/// The first three are the words of the draft.
fn title(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::KeyMissing => "Idempotency-Key is missing",
        ErrorKind::Mismatch => "Idempotency-Key is already used",
        ErrorKind::InFlight => "A request is outstanding for this Idempotency-Key",
        ErrorKind::KeyInvalid(_) => "Idempotency-Key is invalid",
        ErrorKind::Interrupted => "An earlier request with this Idempotency-Key was interrupted",
        ErrorKind::CommitUnknown => "It is unknown whether the request was carried out",
        ErrorKind::Unavailable | ErrorKind::NotCommitted => "The request was not carried out",
        _ => "Internal server error",
    }
}

pub(super) fn detail(error: &Error) -> String {
    match error.status() {
        ..500 => error.to_string(),
        503 => "retry with the same idempotency key after a moment".to_owned(),
        _ => "the request could not be carried out; the log of the server says why".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::KeyProblem;

    fn json(kind: ErrorKind) -> serde_json::Value {
        serde_json::from_slice(&Problem::of(&kind.into()).to_json()).unwrap()
    }

    #[test]
    fn a_problem_says_what_is_wrong_and_where_to_read_about_it() {
        let problem = json(KeyProblem::NotAString.into_kind());
        assert_eq!(
            problem["type"],
            "https://docs.rs/effectively/latest/effectively/enum.ErrorKind.html#variant.KeyInvalid"
        );
        assert_eq!(problem["title"], "Idempotency-Key is invalid");
        assert_eq!(problem["status"], 400);
        assert_eq!(problem["code"], "idempotency_key_invalid");
        assert!(problem["detail"].as_str().unwrap().contains("RFC 8941"));
    }

    #[test]
    fn a_server_error_tells_nothing_about_the_inside() {
        let scope = ErrorKind::DuplicateScope {
            scope: "pay".into(),
            first: "src/a.rs:1",
            second: "src/b.rs:2",
        };
        for kind in [
            scope,
            ErrorKind::TablesMissing,
            ErrorKind::Database,
            ErrorKind::Unavailable,
        ] {
            let detail = json(kind)["detail"].as_str().unwrap().to_owned();
            assert!(
                !detail.contains("src/")
                    && !detail.contains("table")
                    && !detail.contains("database"),
                "{detail}"
            );
        }
    }

    impl KeyProblem {
        fn into_kind(self) -> ErrorKind {
            ErrorKind::KeyInvalid(self)
        }
    }
}
