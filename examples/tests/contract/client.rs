//! A client that sends bytes and reads the answer to the end of the connection.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No answer takes longer, or the test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A response as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case, in the order that they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The one header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(found, _)| found == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "`{name}` came twice");
        value
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub fn is_replay(&self) -> bool {
        self.header("idempotent-replayed") == Some("true")
    }

    /// Status, and whether it is a replay.
    pub fn kind(&self) -> (u16, bool) {
        (self.status, self.is_replay())
    }

    /// The media type without its parameters.
    pub fn media_type(&self) -> Option<&str> {
        let value = self.header("content-type")?;
        value.split(';').next().map(str::trim)
    }
}

/// `POST /orders` with these lines of `Idempotency-Key`, as they stand.
pub fn post(user: Option<&str>, keys: &[&[u8]], body: &str) -> Vec<u8> {
    let length = format!(
        "Content-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    let mut request = head("POST /orders", user, keys, &length);
    request.extend(body.as_bytes());
    request
}

/// The same, with the body in two chunks and no length.
pub fn post_in_chunks(user: &str, key: &[u8], body: &str) -> Vec<u8> {
    let chunked = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    let mut request = head("POST /orders", Some(user), &[key], chunked);
    let (one, two) = body.split_at(body.len() / 2);
    for chunk in [one, two, ""] {
        request.extend(format!("{:x}\r\n{chunk}\r\n", chunk.len()).bytes());
    }
    request
}

/// Any other request, without a body.
pub fn get(path: &str, user: Option<&str>, keys: &[&[u8]]) -> Vec<u8> {
    head(&format!("GET {path}"), user, keys, "")
}

fn head(line: &str, user: Option<&str>, keys: &[&[u8]], rest: &str) -> Vec<u8> {
    let user = user.map(|user| format!("Authorization: Bearer {user}\r\n"));
    let user = user.unwrap_or_default();
    let mut head =
        format!("{line} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n{user}{rest}").into_bytes();
    for key in keys {
        head.extend(b"Idempotency-Key: ");
        head.extend(*key);
        head.extend(b"\r\n");
    }
    head.extend(b"\r\n");
    head
}

/// Sends the request and does not read.
pub async fn open(server: SocketAddr, request: &[u8]) -> TcpStream {
    let stream = try_open(server, request).await;
    stream.expect("a sent request")
}

/// Ends a connection with RST, so that the server's next read or write fails.
pub fn reset(stream: TcpStream) {
    stream.set_zero_linger().expect("a connection to reset");
}

/// The answer, or `None` when the server ends the connection without one.
pub async fn read(mut stream: TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    // A connection that is reset has ended as well.
    let _ = end.expect("an answer within the bound");
    let split = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..split]).expect("a head of text");
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').expect("a header");
        (name.to_lowercase(), value.trim().to_owned())
    });
    let answer = Answer {
        status,
        headers: headers.collect(),
        body: bytes[split + 4..].to_vec(),
    };
    assert_eq!(answer.header("transfer-encoding"), None, "{answer:?}");
    let length = answer.header("content-length").map(str::parse::<usize>);
    // A torn answer is none.
    match length {
        Some(Ok(length)) if length != answer.body.len() => None,
        _ => Some(answer),
    }
}

/// Sends the request and reads the answer. `None`: the server is not there, or ends the connection without one.
pub async fn exchange(server: SocketAddr, request: &[u8]) -> Option<Answer> {
    read(try_open(server, request).await?).await
}

/// `None`: the server is not there.
pub async fn try_open(server: SocketAddr, request: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(server).await.ok()?;
    stream.write_all(request).await.ok()?;
    Some(stream)
}

/// The answer is the toolkit's own: RFC 9457, with a link.
#[track_caller]
pub fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let media_type = answer.header("content-type");
    assert_eq!(media_type, Some("application/problem+json"), "{answer:?}");
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{answer:?}");
    assert_eq!(problem["status"], status);
    for name in ["type", "title", "detail"] {
        let text = problem[name].as_str().expect("a text");
        assert!(!text.is_empty(), "{name}");
    }
    let page = problem["type"].as_str().expect("a text");
    let link = answer.header("link").expect("a link");
    assert!(
        page.starts_with("https://") && link.contains(page) && link.contains("rel=\"describedby\"")
    );
    assert!(!answer.is_replay());
}

/// The answer is the application's own error.
#[track_caller]
pub fn assert_error(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let media_type = answer.header("content-type");
    assert_eq!(media_type, Some("application/problem+json"), "{answer:?}");
    let problem = answer.json();
    assert_eq!(
        (&problem["code"], &problem["status"]),
        (&code.into(), &status.into())
    );
    for name in ["type", "title", "detail"] {
        let text = problem[name].as_str().expect("a text");
        assert!(!text.is_empty(), "{name}");
    }
}

/// The answer says when to come back.
#[track_caller]
pub fn assert_retry_after(answer: &Answer) {
    let seconds = answer.header("retry-after").expect("a time to come back");
    assert!(
        seconds.parse::<u64>().is_ok_and(|seconds| seconds >= 1),
        "{answer:?}"
    );
}

/// The second answer is the first one, and says so.
#[track_caller]
pub fn assert_replayed(first: &Answer, again: &Answer) {
    assert!(
        !first.is_replay() && again.is_replay(),
        "{first:?} {again:?}"
    );
    assert_eq!(first.status, again.status);
    assert_eq!(first.body, again.body);
    assert_eq!(kept(first), kept(again));
    assert_eq!(first.header("cache-control"), None);
    assert_eq!(again.header("cache-control"), Some("no-store"));
}

/// The headers but for those that belong to one response.
fn kept(answer: &Answer) -> Vec<&(String, String)> {
    let own = ["date", "idempotent-replayed", "cache-control", "connection"];
    let headers = answer.headers.iter();
    let mut kept: Vec<_> = headers
        .filter(|(name, _)| !own.contains(&name.as_str()))
        .collect();
    kept.sort();
    kept
}
