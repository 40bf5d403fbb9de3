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

    /// Everything that came, as one text.
    pub fn text(&self) -> String {
        format!("{:?} {}", self.headers, String::from_utf8_lossy(&self.body))
    }
}

/// A POST with these lines of `Idempotency-Key`, as they stand, and this body.
pub fn post(path: &str, keys: &[&[u8]], body: &str) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    )
    .into_bytes();
    for key in keys {
        request.extend(b"Idempotency-Key: ");
        request.extend(*key);
        request.extend(b"\r\n");
    }
    request.extend(b"\r\n");
    request.extend(body.as_bytes());
    request
}

/// Sends the request and does not read.
pub async fn open(server: SocketAddr, request: &[u8]) -> TcpStream {
    let stream = TcpStream::connect(server).await;
    let mut stream = stream.expect("a connection to the server");
    stream.write_all(request).await.expect("a sent request");
    stream
}

/// The answer, or `None` when the server ends the connection without one.
pub async fn read(mut stream: TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    // A connection that is reset has ended as well.
    let _ = end.expect("an answer within the bound");
    let split = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..split]);
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(": ").expect("a header");
        (name.to_lowercase(), value.to_owned())
    });
    Some(Answer {
        status,
        headers: headers.collect(),
        body: bytes[split + 4..].to_vec(),
    })
}

/// Sends the request and reads the answer.
pub async fn exchange(server: SocketAddr, request: &[u8]) -> Option<Answer> {
    read(open(server, request).await).await
}

/// The answer is the toolkit's own: RFC 9457, with a link, and nothing of the request in it.
#[track_caller]
pub fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let media_type = answer.header("content-type");
    assert_eq!(media_type, Some("application/problem+json"));
    let problem = answer.json();
    let fields = problem.as_object().expect("an object");
    let names: Vec<_> = fields.keys().map(String::as_str).collect();
    assert_eq!(names, ["code", "detail", "status", "title", "type"]);
    assert_eq!(problem["status"], status);
    assert_eq!(problem["code"], code);
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
