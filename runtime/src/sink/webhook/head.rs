//! What stands in a webhook's head.

use std::{borrow::Cow, fmt, fmt::Write, sync::Arc};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::InvalidWebhook;
use crate::{model::Envelope, sink::CONTENT_TYPE as JSON};

const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The secret that a webhook is signed with, shared with its receiver. It shows itself nowhere.
///
/// ```
/// use effectively::sink::webhook::Secret;
///
/// let secret = Secret::new("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
/// ```
#[derive(Clone)]
pub struct Secret(Arc<standardwebhooks::Webhook>);

/// Shorter ones can be guessed: the least that Standard Webhooks allows.
const SHORTEST: usize = 24;

impl Secret {
    /// Reads `whsec_` and the base64 of at least 24 random bytes. The prefix may be missing.
    ///
    /// # Errors
    /// [`InvalidWebhook::Secret`]
    pub fn new(text: &str) -> Result<Self, InvalidWebhook> {
        let digits = text
            .strip_prefix("whsec_")
            .unwrap_or(text)
            .trim_end_matches('=');
        match standardwebhooks::Webhook::new(text) {
            Ok(secret) if digits.len() * 3 / 4 >= SHORTEST => Ok(Self(Arc::new(secret))),
            _ => Err(InvalidWebhook::Secret),
        }
    }

    /// Takes the bytes themselves, at least 24.
    ///
    /// # Errors
    /// [`InvalidWebhook::Secret`]
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, InvalidWebhook> {
        if bytes.len() < SHORTEST {
            return Err(InvalidWebhook::Secret);
        }
        let secret = standardwebhooks::Webhook::from_bytes(bytes);
        Ok(Self(Arc::new(secret.map_err(|_| InvalidWebhook::Secret)?)))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why an event cannot be sent over HTTP, whenever it is tried.
type Unfit = Cow<'static, str>;

/// The head of one attempt, at so many seconds since 1970.
///
/// The order matters: what comes later replaces what an event's own headers say.
pub(super) fn head(event: &Envelope, secrets: &[Secret], now: i64) -> Result<HeaderMap, Unfit> {
    let mut head = HeaderMap::new();
    for (name, value) in &event.headers {
        let Ok(name) = HeaderName::try_from(name) else {
            return Err("the name of a header is not allowed in HTTP".into());
        };
        if is_reserved(name.as_str()) {
            continue;
        }
        // Beyond ASCII, HTTP carries bytes that each receiver reads in its own way.
        let ascii = value.is_ascii().then_some(value);
        let Some(Ok(value)) = ascii.map(HeaderValue::try_from) else {
            return Err(format!("the value of the header {name} is not allowed in HTTP").into());
        };
        head.insert(name, value);
    }
    for (name, value) in event.attributes() {
        let name = HeaderName::try_from(format!("ce-{name}"));
        let value = HeaderValue::try_from(percent_encoded(&value));
        if let (Ok(name), Ok(value)) = (name, value) {
            head.insert(name, value);
        }
    }
    let id = event.id.to_string();
    let mut signature = sign(event, secrets, &id, now)?;
    signature.set_sensitive(true);
    head.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    head.insert("webhook-timestamp", now.into());
    head.insert(SIGNATURE, signature);
    // Hex digits and hyphens: no string of RFC 8941 needs them escaped.
    head.insert("idempotency-key", text(&format!("\"{id}\""))?);
    head.insert("webhook-id", text(&id)?);
    Ok(head)
}

fn text(value: &str) -> Result<HeaderValue, Unfit> {
    HeaderValue::from_str(value).map_err(|_| "a value is not allowed in HTTP".into())
}

/// One signature for each secret: a receiver that knows one of them is content.
fn sign(event: &Envelope, secrets: &[Secret], id: &str, now: i64) -> Result<HeaderValue, Unfit> {
    let signatures: Result<Vec<_>, _> = secrets
        .iter()
        .map(|secret| secret.0.sign(id, now, &event.data))
        .collect();
    let signatures = signatures.map_err(|_| "the data is not UTF-8 and cannot be signed")?;
    text(&signatures.join(" "))
}

/// Whether an event's own header has no say: the sink's words, the connection's, and those that speak for whoever sends.
fn is_reserved(name: &str) -> bool {
    const RESERVED: [&str; 14] = [
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "idempotency-key",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    const PREFIXES: [&str; 3] = ["ce-", "proxy-", "webhook-"];
    RESERVED.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// As the HTTP binding of CloudEvents writes a value: printable ASCII, without space, quote and percent.
fn percent_encoded(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%') {
            encoded.push(byte.into());
        } else {
            // Writing into a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_as_cloudevents_says() {
        assert_eq!(percent_encoded("a b\"c%d~!"), "a%20b%22c%25d~!");
        // The example of the specification.
        assert_eq!(
            percent_encoded("Euro € 😀"),
            "Euro%20%E2%82%AC%20%F0%9F%98%80"
        );
        assert_eq!(percent_encoded("\r\n\u{7f}"), "%0D%0A%7F");
    }

    #[test]
    fn a_secret_is_long_and_base64() {
        let long = "C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        for text in [long.to_owned(), format!("whsec_{long}")] {
            assert!(Secret::new(&text).is_ok());
        }
        for text in [
            "",
            "whsec_",
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7o",
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspobw==",
            "not base64!",
        ] {
            assert!(Secret::new(text).is_err(), "{text}");
        }
        assert!(Secret::from_bytes(vec![7; 23]).is_err());
        assert!(Secret::from_bytes(vec![7; 24]).is_ok());
    }
}
