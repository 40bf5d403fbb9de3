//! What an application may choose about how the toolkit speaks HTTP.

use std::{borrow::Cow, sync::OnceLock};

use http::HeaderName;

use crate::error::{Error, ErrorKind};

/// Where the default contract's problems are described.
const PAGE: &str = "https://docs.rs/effectively/latest/effectively/enum.ErrorKind.html";
const MARKER: &str = "idempotent-replayed";

static INSTALLED: OnceLock<Contract> = OnceLock::new();

/// How the toolkit speaks HTTP in this process: which keys it takes, and how its own answers look.
///
/// The defaults are draft-ietf-httpapi-idempotency-key-header-07 to the letter. It is set once, before the first request, for
/// all frameworks alike: extractors and responses have no common place to find it in.
///
/// ```
/// use effectively::web::Contract;
///
/// Contract::default()
///     .lenient_keys(true)
///     .status("idempotency_key_in_flight", 423)
///     .replay_marker("x-idempotent-replay")
///     .documentation("https://shop.example/docs/retries")
///     .install()?;
/// # Ok::<_, effectively::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a contract does nothing before `install`"]
pub struct Contract {
    lenient_keys: bool,
    marker: Cow<'static, str>,
    documentation: Option<Cow<'static, str>>,
    statuses: Vec<(Cow<'static, str>, u16)>,
}

impl Default for Contract {
    fn default() -> Self {
        Self {
            lenient_keys: false,
            marker: Cow::Borrowed(MARKER),
            documentation: None,
            statuses: Vec::new(),
        }
    }
}

impl Contract {
    /// Whether `Idempotency-Key: abc`, without quotes, is taken as well. It is then the same key as `"abc"`. Most clients of
    /// payment APIs send it so; the draft asks for an RFC 8941 string. Default: `false`.
    pub fn lenient_keys(self, allowed: bool) -> Self {
        Self {
            lenient_keys: allowed,
            ..self
        }
    }

    /// The status that problems with this [`code`](crate::Error::code) answer with. Default: [`Error::status`](crate::Error::status).
    pub fn status(mut self, code: impl Into<Cow<'static, str>>, status: u16) -> Self {
        self.statuses.push((code.into(), status));
        self
    }

    /// The header that marks a replay, with the value `true`. Default: `Idempotent-Replayed`.
    pub fn replay_marker(self, name: impl Into<Cow<'static, str>>) -> Self {
        Self {
            marker: name.into(),
            ..self
        }
    }

    /// The page that describes the problems, for `type` and `Link`; the code is added as its fragment. Default: the page of
    /// [`ErrorKind`](crate::ErrorKind).
    pub fn documentation(self, url: impl Into<Cow<'static, str>>) -> Self {
        Self {
            documentation: Some(url.into()),
            ..self
        }
    }

    /// Makes it the contract of this process.
    ///
    /// # Errors
    /// [`ErrorKind::Settings`] when the marker is no name of a header, a status is not 400 to 599, the URL holds a character
    /// that a `Link` cannot carry, or the first request was there before.
    pub fn install(self) -> Result<(), Error> {
        self.check()?;
        INSTALLED.set(self).map_err(|_| {
            ErrorKind::Settings("the HTTP contract is set once, before the first request").into()
        })
    }

    fn check(&self) -> Result<(), ErrorKind> {
        let in_link = |c: char| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"');
        if HeaderName::try_from(&*self.marker).is_err() {
            return Err(ErrorKind::Settings(
                "the marker of replays must be the name of a header",
            ));
        }
        if self
            .statuses
            .iter()
            .any(|(_, status)| !(400..=599).contains(status))
        {
            return Err(ErrorKind::Settings(
                "the status of a problem is between 400 and 599",
            ));
        }
        if self
            .documentation
            .as_ref()
            .is_some_and(|url| url.is_empty() || !url.chars().all(in_link))
        {
            return Err(ErrorKind::Settings(
                "the URL of the documentation must be plain ASCII without `<`, `>`, quotes and spaces",
            ));
        }
        Ok(())
    }

    /// The contract of this process. The first to ask fixes it.
    pub(crate) fn current() -> &'static Self {
        INSTALLED.get_or_init(Self::default)
    }

    pub(super) fn is_lenient(&self) -> bool {
        self.lenient_keys
    }

    pub(super) fn marker(&self) -> HeaderName {
        HeaderName::try_from(&*self.marker).unwrap_or(HeaderName::from_static(MARKER))
    }

    pub(super) fn status_of(&self, error: &Error) -> u16 {
        let chosen = self
            .statuses
            .iter()
            .rfind(|(code, _)| *code == error.code());
        chosen.map_or_else(|| error.status(), |(_, status)| *status)
    }

    /// The place that describes a problem.
    pub(super) fn page_of(&self, error: &Error) -> String {
        match &self.documentation {
            Some(url) => format!("{url}#{}", error.code()),
            None => format!("{PAGE}#variant.{}", variant(error.kind())),
        }
    }
}

/// Its name is how `Debug` begins.
fn variant(kind: &ErrorKind) -> String {
    let debug = format!("{kind:?}");
    let end = debug.find(|c: char| !c.is_ascii_alphanumeric());
    debug[..end.unwrap_or(debug.len())].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_response_could_not_carry_is_refused() {
        let contract = Contract::default;
        for bad in [
            contract().replay_marker("a b"),
            contract().status("idempotency_key_missing", 200),
            contract().documentation("https://a.example/ b"),
            contract().documentation(""),
        ] {
            assert!(
                matches!(
                    bad.clone().install().unwrap_err().kind(),
                    ErrorKind::Settings(_)
                ),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn what_is_chosen_goes_before_the_default() {
        let contract = Contract::default()
            .status("idempotency_key_in_flight", 423)
            .documentation("https://shop.example/retries");
        let in_flight = Error::from(ErrorKind::InFlight);
        assert_eq!(contract.status_of(&in_flight), 423);
        assert_eq!(contract.status_of(&ErrorKind::Mismatch.into()), 422);
        assert_eq!(
            contract.page_of(&in_flight),
            "https://shop.example/retries#idempotency_key_in_flight"
        );
        assert_eq!(
            Contract::default().page_of(&in_flight),
            format!("{PAGE}#variant.InFlight")
        );
    }
}
