//! What the handlers of all frameworks have in common, and what each test begins with: one of their servers.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use effectively::{Ledger, web::Exclude};
use effectively_tests::{TestDb, TestServer};
use serde::{Deserialize, Serialize};
use sqlx::{Sqlite, SqliteConnection};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{self, Answer};

/// No answer takes longer. An endless one would.
const AT_ONCE: Duration = Duration::from_secs(20);

/// The headers of the whole response. The last three must not be stored.
pub const HEADERS: [(&str, &[u8]); 9] = [
    ("x-many", b"1"),
    ("x-many", b"2, 3"),
    ("x-many", b"\xFF"),
    ("content-type", b"image/png"),
    ("set-cookie", b"a=1"),
    ("set-cookie", b"b=2"),
    ("date", b"yesterday"),
    ("connection", b"x-hop"),
    ("x-hop", b"1"),
];

/// Its body.
pub const BODY: &[u8] = b"\x00\xFFbody";

/// The headers beside a JSON.
pub const HEAD: [(&str, &str); 2] = [
    ("location", "/orders/7"),
    ("content-type", "application/x+json"),
];

/// Longer than an outcome may be.
pub fn large() -> String {
    "x".repeat(300 * 1024)
}

#[derive(Serialize, Deserialize)]
pub struct Place {
    pub item: String,
}

pub enum SentAt {}
impl Exclude for SentAt {
    const FIELDS: &'static [&'static str] = &["/sent_at"];
}

/// The application's error: 418 in every framework, so that nobody takes it for the toolkit's.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct AppError(#[from] sqlx::Error);

/// Every handler's write.
pub async fn write(tx: &mut SqliteConnection) -> Result<(), AppError> {
    Sqlite::execute(tx, "insert into orders values (1)").await?;
    Ok(())
}

/// No two runs have one text.
pub fn run() -> String {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    format!("run {}", RUNS.fetch_add(1, Ordering::SeqCst))
}

/// A free port of this machine.
pub fn listener() -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener
        .set_nonblocking(true)
        .expect("a listener for tokio");
    listener
}

/// A running server, ended with this value.
pub struct Server {
    pub address: SocketAddr,
    pub stop: Box<dyn FnMut() + Send>,
}

impl Drop for Server {
    fn drop(&mut self) {
        (self.stop)();
    }
}

/// A server of one framework on a database of its own.
pub struct Shop {
    // Before its database.
    server: Server,
    db: TestDb<Sqlite>,
}

impl Shop {
    pub async fn open(start: fn(Ledger<Sqlite>) -> Server) -> Self {
        let db = TestDb::new().await;
        let ledger = Ledger::new(db.pool().clone());
        ledger.migrate().await.expect("the toolkit's tables");
        db.execute("create table orders (id bigint not null)").await;
        let server = start(ledger);
        Self { server, db }
    }

    /// Always with the same key.
    pub async fn post(&self, path: &str, body: &str) -> Answer {
        let request = client::post(path, &[b"\"k\""], body);
        let stream = TcpStream::connect(self.server.address).await;
        let mut stream = stream.expect("a connection to the server");
        // A server that refuses a body need not read all of it.
        let _ = stream.write_all(&request).await;
        let answer = timeout(AT_ONCE, client::read(stream)).await;
        answer.expect("an answer at once").expect("an answer")
    }

    /// The same twice: once from the handler, once from the record.
    pub async fn post_twice(&self, path: &str) -> [Answer; 2] {
        let both = [self.post(path, "").await, self.post(path, "").await];
        let replays = both.each_ref().map(Answer::is_replay);
        assert_eq!(replays, [false, true], "{both:?}");
        both
    }

    /// Orders and claims.
    pub async fn stored(&self) -> (i64, i64) {
        let orders = self.db.number("select count(*) from orders").await;
        let claims = "select count(*) from effectively_claims";
        (orders, self.db.number(claims).await)
    }
}
