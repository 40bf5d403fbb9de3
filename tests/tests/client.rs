//! `IdempotentRetries` over real connections: what goes over the wire, how often, and when.

// A test that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used)]

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{Extensions, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use effectively::client::{IdempotentRetries, TimedOut};
use effectively::{IdempotencyKey, Ledger, idempotent};
use effectively_tests::{LogCapture, TestDb};
use reqwest::{Body, Method};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Middleware, RequestBuilder};
use sqlx::{Sqlite, SqliteConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// What the server does with a request that it has read.
#[derive(Clone, Copy)]
enum Act {
    /// Answers with this status, these lines of headers, and this body.
    Answer(u16, &'static str, &'static str),
    /// Cuts the connection.
    Cut,
    /// Promises a body, and cuts the connection in it.
    CutInBody(u16, &'static str),
    /// Says nothing.
    Hang,
}
use Act::{Answer, Cut, CutInBody, Hang};

const OK: Act = Answer(200, "", "done");
const PROBLEM: &str = "Content-Type: application/problem+json\r\n";
const IN_FLIGHT: &str = r#"{"status":409,"code":"idempotency_key_in_flight"}"#;
const INTERRUPTED: &str = r#"{"status":409,"code":"idempotency_key_interrupted"}"#;

/// A request as it came.
#[derive(Debug, Clone)]
struct Seen {
    at: Instant,
    head: String,
    body: String,
}

impl Seen {
    fn keys(&self) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let keys = lines.filter(|(name, _)| name.eq_ignore_ascii_case("idempotency-key"));
        keys.map(|(_, value)| value).collect()
    }

    fn key(&self) -> &str {
        let keys = self.keys();
        assert_eq!(keys.len(), 1, "{self:?}");
        keys[0]
    }
}

/// A server that goes by its script, one act for each request. The last one is repeated.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    async fn start(script: &'static [Act]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        tokio::spawn(async move {
            let mut held = Vec::new();
            for number in 0.. {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let request = read(&mut stream).await;
                log.lock().expect("the log").push(request);
                match script[number.min(script.len() - 1)] {
                    Answer(status, headers, body) => {
                        answer(&mut stream, status, headers, body, body.len()).await;
                    }
                    CutInBody(status, headers) => {
                        answer(&mut stream, status, headers, "{", 100).await;
                    }
                    Cut => {}
                    Hang => held.push(stream),
                }
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("the log").clone()
    }

    fn request(&self, client: &ClientWithMiddleware, method: Method) -> RequestBuilder {
        client.request(method, format!("http://{}/pay", self.address))
    }

    fn post(&self, client: &ClientWithMiddleware) -> RequestBuilder {
        self.request(client, Method::POST).body("amount=100")
    }

    /// All tries were one request, with one key.
    fn assert_one_request(&self, tries: usize) {
        let seen = self.seen();
        assert_eq!(seen.len(), tries, "{seen:#?}");
        let keys: HashSet<_> = seen.iter().map(Seen::key).collect();
        assert_eq!(keys.len(), 1, "{seen:#?}");
        assert!(seen.iter().all(|request| request.body == "amount=100"));
    }
}

async fn read(stream: &mut TcpStream) -> Seen {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        assert_ne!(stream.read_buf(&mut bytes).await.expect("a request"), 0);
    };
    let text = String::from_utf8(bytes[..head].to_vec()).expect("text");
    let length = text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.parse().expect("a length"));
    while bytes.len() < head + length {
        assert_ne!(stream.read_buf(&mut bytes).await.expect("a body"), 0);
    }
    Seen {
        at: Instant::now(),
        head: text,
        body: String::from_utf8(bytes[head..].to_vec()).expect("text"),
    }
}

async fn answer(stream: &mut TcpStream, status: u16, headers: &str, body: &str, length: usize) {
    let text = format!(
        "HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.expect("an answer");
    stream.shutdown().await.expect("its end");
}

/// Five tries with pauses that no test has to wait for.
fn quick() -> IdempotentRetries {
    IdempotentRetries::new().backoff(Duration::from_millis(1), Duration::from_millis(5))
}

fn client(retries: IdempotentRetries) -> ClientWithMiddleware {
    ClientBuilder::new(reqwest::Client::new())
        .with(retries)
        .build()
}

#[tokio::test]
async fn every_try_has_the_same_key_also_after_a_cut() {
    let client = client(quick());
    let script = &[Answer(503, "", ""), Cut, Cut, Answer(429, "", ""), OK];
    let server = Server::start(script).await;
    let answer = server.post(&client).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    server.assert_one_request(5);

    let key = server.seen()[0].key().to_owned();
    let uuid = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
    let uuid = uuid.expect("an RFC 8941 string");
    assert!(uuid.len() == 36 && uuid.as_bytes()[14] == b'4', "{uuid}");
    server.post(&client).send().await.expect("an answer");
    assert_ne!(server.seen()[5].key(), key, "another request, another key");
}

#[tokio::test]
async fn what_may_pass_is_sent_again() {
    let scripts: [&'static [Act]; 11] = [
        &[Cut, OK],
        &[Answer(409, "Retry-After: 0\r\n", ""), OK],
        &[Answer(409, PROBLEM, IN_FLIGHT), OK],
        &[Answer(423, PROBLEM, IN_FLIGHT), OK],
        &[CutInBody(409, PROBLEM), OK],
        &[Answer(425, "", ""), OK],
        &[Answer(429, "", ""), OK],
        &[Answer(502, "", ""), OK],
        &[Answer(503, "", ""), OK],
        &[Answer(504, "", ""), OK],
        // A date is no number of seconds: the pause is our own.
        &[
            Answer(503, "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n", ""),
            OK,
        ],
    ];
    let client = client(quick());
    for script in scripts {
        let server = Server::start(script).await;
        let answer = server.post(&client).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        server.assert_one_request(2);
    }
}

#[tokio::test]
async fn what_is_final_is_not_sent_again() {
    let scripts: [&'static [Act]; 9] = [
        &[OK],
        &[Answer(400, "", "")],
        &[Answer(404, "Retry-After: 0\r\n", "")],
        &[Answer(409, "", IN_FLIGHT)],
        &[Answer(409, PROBLEM, INTERRUPTED)],
        &[Answer(409, PROBLEM, "{")],
        &[Answer(422, PROBLEM, "{}")],
        &[Answer(500, "", "")],
        &[Answer(500, "Retry-After: 0\r\n", "")],
    ];
    let client = client(quick());
    for script in scripts {
        let server = Server::start(script).await;
        let found = server.post(&client).send().await.expect("an answer");
        let Answer(status, _, body) = script[0] else {
            unreachable!("all of them answer");
        };
        assert_eq!(found.status(), status);
        assert_eq!(found.url().path(), "/pay");
        assert!(found.headers().contains_key("content-length"));
        assert_eq!(found.remote_addr(), Some(server.address));
        assert_eq!(found.text().await.expect("a body"), body);
        server.assert_one_request(1);
    }
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let server = Server::start(&[Answer(503, "Retry-After: 1\r\n", ""), OK]).await;
    let answer = server.post(&client(quick())).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
    let seen = server.seen();
    let waited = seen[1].at - seen[0].at;
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
}

#[tokio::test]
async fn the_pause_grows_up_to_its_bound() {
    let server = Server::start(&[Answer(503, "", "")]).await;
    let (first, longest) = (Duration::from_millis(80), Duration::from_millis(200));
    let retries = IdempotentRetries::new().backoff(first, longest);
    server
        .post(&client(retries))
        .send()
        .await
        .expect("an answer");
    let seen = server.seen();
    let pauses: Vec<_> = seen.windows(2).map(|two| two[1].at - two[0].at).collect();
    for (pause, least) in pauses.iter().zip([40, 80, 100, 100]) {
        assert!(*pause >= Duration::from_millis(least), "{pauses:?}");
    }
    assert_eq!(pauses.len(), 4);
}

#[tokio::test]
async fn the_last_answer_is_the_callers() {
    let server = Server::start(&[Cut, Cut, Answer(503, "", "busy")]).await;
    let answer = server.post(&client(quick().max_tries(3))).send().await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.text().await.expect("a body"), "busy");
    server.assert_one_request(3);
}

#[tokio::test]
async fn the_last_error_is_the_callers_and_holds_no_key() {
    let server = Server::start(&[Answer(503, "", ""), Cut]).await;
    let error = server.post(&client(quick().max_tries(2))).send().await;
    let error = error.expect_err("no answer");
    assert!(error.is_request());
    server.assert_one_request(2);
    let key = server.seen()[0].key().trim_matches('"').to_owned();
    assert!(!format!("{error} {error:?}").contains(&key));
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let address = listener.expect("a port").local_addr().expect("its address");
    let request = client(quick()).post(format!("http://{address}"));
    assert!(request.send().await.expect_err("no answer").is_connect());
}

#[tokio::test]
async fn a_try_that_hangs_is_given_up_and_sent_again() {
    let server = Server::start(&[Hang, OK]).await;
    let http = reqwest::Client::builder().timeout(Duration::from_millis(300));
    let http = ClientBuilder::new(http.build().expect("a client"));
    let answer = server.post(&http.with(quick()).build()).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
    server.assert_one_request(2);
}

#[tokio::test]
async fn the_whole_ends_with_its_time() {
    let server = Server::start(&[Answer(503, "", ""), Hang]).await;
    let began = Instant::now();
    let retries = quick().total_time(Duration::from_millis(500));
    let error = server.post(&client(retries)).send().await;
    let error = error.expect_err("no answer");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(20));
    let Error::Middleware(inside) = error else {
        panic!("{error:?}");
    };
    assert_eq!(inside.downcast_ref(), Some(&TimedOut));
    server.assert_one_request(2);
}

#[tokio::test]
async fn a_pause_beyond_the_time_is_not_waited_for() {
    let server = Server::start(&[Answer(503, "Retry-After: 3600\r\n", "")]).await;
    let answer = server.post(&client(quick())).send().await;
    assert_eq!(answer.expect("an answer").status(), 503);
    server.assert_one_request(1);
}

#[tokio::test]
async fn the_callers_own_key_is_kept() {
    let server = Server::start(&[Cut, OK]).await;
    let client = client(quick());
    for method in [Method::POST, Method::PUT] {
        let request = server
            .request(&client, method)
            .header("Idempotency-Key", "\"mine\"");
        request.send().await.expect("an answer");
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|request| request.key() == "\"mine\""));
}

#[tokio::test]
async fn a_put_with_a_key_is_sent_again_and_other_methods_pass_untouched() {
    let client = client(quick());
    let server = Server::start(&[Cut, OK]).await;
    let request = server.request(&client, Method::PUT).body("amount=100");
    let answer = request.header("idempotency-key", "\"k\"").send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
    server.assert_one_request(2);

    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let server = Server::start(&[Answer(503, "", ""), OK]).await;
        let answer = server.request(&client, method).send().await;
        assert_eq!(answer.expect("an answer").status(), 503);
        let seen = server.seen();
        assert_eq!((seen.len(), seen[0].keys().len()), (1, 0));
    }
    let server = Server::start(&[Answer(503, "", ""), OK]).await;
    let request = server.request(&client, Method::PATCH).body("amount=100");
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    server.assert_one_request(2);
}

#[tokio::test]
async fn a_stream_is_sent_once_with_a_key() {
    let server = Server::start(&[Answer(503, "", ""), OK]).await;
    let pieces = futures_util::stream::iter([Ok::<_, sqlx::Error>("a"), Ok("b")]);
    let request = server.request(&client(quick()), Method::POST);
    let answer = request.body(Body::wrap_stream(pieces)).send().await;
    assert_eq!(answer.expect("an answer").status(), 503);
    let seen = server.seen();
    assert_eq!((seen.len(), seen[0].keys().len()), (1, 1));
}

/// Logs the requests, as applications do.
struct Logging;

#[async_trait::async_trait]
impl Middleware for Logging {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: reqwest_middleware::Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        tracing::info!(?request, "sending");
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn no_log_holds_the_key() {
    let logs = LogCapture::on_this_thread();
    let server = Server::start(&[Answer(503, "", ""), Cut, OK]).await;
    let http = ClientBuilder::new(reqwest::Client::new());
    let client = http.with(quick()).with(Logging).build();
    let request = server.post(&client).header("idempotency-key", "\"s3cret\"");
    request.send().await.expect("an answer");
    server.assert_one_request(3);
    assert_eq!(logs.lines_with("sent again").len(), 2);
    assert!(logs.text().contains("idempotency-key"));
    assert!(!logs.text().contains("s3cret"));
}

/// Of the handler. Its one run is held until the router has told a repeat to come back.
#[derive(Clone)]
struct Shop {
    ledger: Ledger<Sqlite>,
    entered: Arc<Semaphore>,
    refused: Arc<Semaphore>,
}

impl axum::extract::FromRef<Shop> for Ledger<Sqlite> {
    fn from_ref(shop: &Shop) -> Self {
        shop.ledger.clone()
    }
}

#[idempotent(key = "{idempotency_key}", shared_by_all, wait = "50ms")]
async fn pay(
    tx: &mut SqliteConnection,
    State(shop): State<Shop>,
    idempotency_key: IdempotencyKey,
) -> Result<Json<i64>, StatusCode> {
    shop.entered.add_permits(1);
    drop(shop.refused.acquire().await);
    order(tx)
        .await
        .map(Json)
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn order(tx: &mut SqliteConnection) -> sqlx::Result<i64> {
    let insert = sqlx::query("insert into orders values ('tea')");
    insert.execute(&mut *tx).await?;
    let count = sqlx::query_scalar("select count(*) from orders");
    count.fetch_one(tx).await
}

async fn watch(State(shop): State<Shop>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if response.status() == StatusCode::CONFLICT {
        shop.refused.add_permits(2);
    }
    response
}

#[tokio::test]
async fn a_repeat_in_flight_ends_with_the_first_answer() {
    let db = TestDb::<Sqlite>::new().await;
    db.execute("create table orders (item text not null)").await;
    let ledger = Ledger::new(db.pool().clone());
    ledger.migrate().await.expect("the toolkit's tables");
    let shop = Shop {
        ledger,
        entered: Arc::new(Semaphore::new(0)),
        refused: Arc::new(Semaphore::new(0)),
    };
    let router = Router::new()
        .route("/pay", post(pay))
        .layer(from_fn_with_state(shop.clone(), watch))
        .with_state(shop.clone());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a free port");
    let url = format!("http://{}/pay", listener.local_addr().expect("its address"));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let client = client(quick());
    let pay = || client.post(&url).header("idempotency-key", "\"k\"").send();
    let first = tokio::spawn(pay());
    drop(shop.entered.acquire().await);
    let again = pay().await.expect("an answer");
    let first = first.await.expect("no panic").expect("an answer");
    assert_eq!(
        (first.status(), again.status()),
        (StatusCode::OK, StatusCode::OK)
    );
    assert!(!first.headers().contains_key("idempotent-replayed"));
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    let (first, again) = (first.text().await, again.text().await);
    assert_eq!(first.expect("a body"), "1");
    assert_eq!(again.expect("a body"), "1");
}
