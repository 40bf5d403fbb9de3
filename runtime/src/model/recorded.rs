//! The recorded outcome: the bytes that the first answer and every replay are made from.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// An answer in the form that is stored: status and headers for the web, and a body.
///
/// `Replay` and `Refusal` implementations make it; [`Outcome`](crate::Outcome) reads it.
#[derive(Clone, PartialEq, Eq)]
pub struct Recorded {
    refused: bool,
    /// The body is JSON that serde wrote, and no header says so.
    json: bool,
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    /// Values of `Set-Cookie`: in the first response, in no replay, never stored.
    cookies: Vec<Vec<u8>>,
    body: Vec<u8>,
}

/// First byte of every stored outcome, so that a foreign value is never taken for one.
const TAG: u8 = 0xEF;
/// Second byte. Raised when the layout changes; old versions stay readable for as long as a retention.
const VERSION: u8 = 1;

const SET_COOKIE: &str = "set-cookie";

/// Headers that belong to one response or one connection (RFC 9110 section 7.6.1), and so are never stored.
const NEVER_STORED: [&str; 10] = [
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Recorded {
    /// The answer of a call that succeeded.
    pub fn success(body: Vec<u8>) -> Self {
        Self {
            refused: false,
            json: false,
            status: 0,
            headers: Vec::new(),
            cookies: Vec::new(),
            body,
        }
    }

    /// A final refusal: it is replayed like a success, and the body's writes are rolled back.
    pub fn refusal(body: Vec<u8>) -> Self {
        Self {
            refused: true,
            ..Self::success(body)
        }
    }

    /// The answer of a call that succeeded, as JSON.
    pub(crate) fn json(body: Vec<u8>) -> Self {
        Self {
            json: true,
            ..Self::success(body)
        }
    }

    /// Whether the body is JSON though no header says so.
    #[cfg(feature = "http")]
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Sets the HTTP status; 0, the default, leaves it to the web framework.
    pub fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// Adds a header, in order, also when its name is there already. `Set-Cookie` is sent with the first response only and
    /// never stored; `Date`, `Content-Length` and headers of the connection are left out.
    pub fn with_header(mut self, name: &str, value: &[u8]) -> Self {
        let name = name.to_ascii_lowercase();
        if name == SET_COOKIE {
            self.cookies.push(value.to_vec());
        } else if !NEVER_STORED.contains(&name.as_str()) {
            self.headers.push((name, value.to_vec()));
        }
        self
    }

    /// Removes all headers of this name, which is in lower case.
    #[cfg(feature = "http")]
    pub(crate) fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// The values of `Set-Cookie`, for the first response only.
    #[cfg(feature = "http")]
    pub(crate) fn cookies(&self) -> &[Vec<u8>] {
        &self.cookies
    }

    /// Whether the handler refused, with an error that calls itself final.
    pub fn is_refusal(&self) -> bool {
        self.refused
    }

    /// The HTTP status, or `None` when the handler's type has none.
    pub fn status(&self) -> Option<u16> {
        (self.status != 0).then_some(self.status)
    }

    /// The kept headers, in the order they were added.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether nothing is stored that a caller or the handler chose, so that it may travel as text.
    pub(crate) fn is_payload_free(&self) -> bool {
        self.headers.is_empty() && self.body.is_empty()
    }

    /// The stored form: tag, version, kind, status, headers, body.
    ///
    /// # Errors
    /// [`ErrorKind::OutcomeTooLarge`] beyond `limit` bytes, [`ErrorKind::Encode`] for headers that the form has no room for.
    pub(crate) fn encode(&self, limit: usize) -> Result<Vec<u8>, Error> {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| 6 + name.len() + value.len())
            .sum();
        let bytes = 7 + headers + self.body.len();
        if bytes > limit {
            return Err(ErrorKind::OutcomeTooLarge { bytes, limit }.into());
        }
        let no_room = |_| ErrorKind::Encode("the headers of the response");
        let mut out = Vec::with_capacity(bytes);
        let kind = u8::from(self.refused) | u8::from(self.json) << 1;
        out.extend([TAG, VERSION, kind]);
        out.extend(self.status.to_be_bytes());
        let count = u16::try_from(self.headers.len()).map_err(no_room)?;
        out.extend(count.to_be_bytes());
        for (name, value) in &self.headers {
            let length = u16::try_from(name.len()).map_err(no_room)?;
            out.extend(length.to_be_bytes());
            out.extend(name.as_bytes());
            let length = u32::try_from(value.len()).map_err(no_room)?;
            out.extend(length.to_be_bytes());
            out.extend(value);
        }
        out.extend(&self.body);
        Ok(out)
    }

    /// Reads the stored form back.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] when it is not one, or of a version that this library does not know.
    pub(crate) fn decode(stored: &[u8]) -> Result<Self, Error> {
        Reader(stored)
            .recorded()
            .ok_or_else(|| ErrorKind::Decode.into())
    }
}

/// Shows what kind of answer it is and how large, but nothing that a caller or the handler chose.
impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded")
            .field("refused", &self.refused)
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn recorded(mut self) -> Option<Recorded> {
        let &[TAG, VERSION, kind @ 0..=3] = self.take(3)? else {
            return None;
        };
        let status = self.u16()?;
        let count = self.u16()?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let length = usize::from(self.u16()?);
            let name = str::from_utf8(self.take(length)?).ok()?.to_owned();
            let length = usize::try_from(self.u32()?).ok()?;
            headers.push((name, self.take(length)?.to_vec()));
        }
        Some(Recorded {
            refused: kind & 1 != 0,
            json: kind & 2 != 0,
            status,
            headers,
            cookies: Vec::new(),
            body: self.0.to_vec(),
        })
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Recorded {
        Recorded::refusal(b"body".to_vec())
            .with_status(402)
            .with_header("X-A", b"1")
            .with_header("x-a", &[0xFF, b','])
            .with_header("Set-Cookie", b"secret")
            .with_header("Date", b"today")
    }

    #[test]
    fn what_is_stored_is_read_back() {
        for recorded in [
            full(),
            Recorded::success(Vec::new()),
            Recorded::json(b"1".to_vec()),
        ] {
            assert_eq!(
                Recorded::decode(&recorded.encode(1000).unwrap()).unwrap(),
                Recorded {
                    cookies: Vec::new(),
                    ..recorded
                }
            );
        }
        assert_eq!(
            full().headers().count(),
            2,
            "cookies and dates are not kept"
        );
    }

    #[test]
    fn a_torn_or_foreign_value_is_an_error() {
        let stored = full().encode(1000).unwrap();
        for length in 0..stored.len() - b"body".len() {
            assert!(
                Recorded::decode(&stored[..length]).is_err(),
                "{length} bytes"
            );
        }
        for place in [0, 1, 2] {
            let mut foreign = stored.clone();
            foreign[place] ^= 0x40;
            assert!(Recorded::decode(&foreign).is_err(), "byte {place}");
        }
    }

    #[test]
    fn an_oversized_answer_says_both_sizes() {
        let error = Recorded::success(vec![0; 100]).encode(64).unwrap_err();
        assert_eq!(
            *error.kind(),
            ErrorKind::OutcomeTooLarge {
                bytes: 107,
                limit: 64
            }
        );
    }

    /// A fuzz target.
    #[test]
    fn any_bytes_are_an_error_or_exactly_what_is_stored_again() {
        bolero::check!().for_each(|bytes: &[u8]| {
            for stored in [bytes.to_vec(), [&[TAG, VERSION], bytes].concat()] {
                match Recorded::decode(&stored) {
                    Ok(recorded) => assert_eq!(recorded.encode(stored.len()).unwrap(), stored),
                    Err(error) => assert_eq!(*error.kind(), ErrorKind::Decode),
                }
            }
        });
    }
}
