//! The sink of webhooks against the conformance suite, on a real HTTP server that verifies, and what it promises beyond it.

// A test that cannot go on says why and stops.
#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::future::{pending, ready};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{
    HeaderMap, StatusCode, Uri,
    header::{LOCATION, RETRY_AFTER},
};
use axum::response::{IntoResponse, Response};
use effectively::Envelope;
use effectively::sink::webhook::{InvalidWebhook, Secret, Webhook, WebhookBuilder};
use effectively::sink::{Delivery, Sink};
use effectively::testing::sink::{Received, Rig, events};
use effectively_tests::{LogCapture, Proxy, eventually};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;

effectively::sink_conformance!(rig);

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OTHER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ";
const LIMIT: usize = 64 * 1024;
const BOUND: Duration = Duration::from_secs(20);

async fn rig() -> Option<Verifying> {
    let receiver = Receiver::start(SECRET);
    let proxy = Arc::new(Proxy::to(receiver.address));
    Some(Verifying { receiver, proxy })
}

struct Verifying {
    receiver: Receiver,
    proxy: Arc<Proxy>,
}

impl Rig for Verifying {
    type Sink = Webhook;

    async fn sink(&mut self) -> Webhook {
        to(self.proxy.address()).build().expect("a sink")
    }

    async fn topic(&mut self) -> String {
        "orders".to_owned()
    }

    /// One receiver for each rig, so all of it belongs to the topic.
    async fn received(&mut self, _: &str, at_least: usize) -> Vec<Received> {
        let heard = Arc::clone(&self.receiver.state);
        let enough = move || ready(heard.accepted().len() >= at_least);
        eventually(BOUND, enough).await;
        let accepted = self.receiver.state.accepted();
        accepted.iter().map(received).collect()
    }

    fn oversized(&mut self) -> Option<usize> {
        Some(LIMIT)
    }

    fn cut_soon(&mut self) -> bool {
        let proxy = Arc::clone(&self.proxy);
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(10));
            proxy.sever();
        });
        true
    }

    async fn restart(&mut self) -> bool {
        self.receiver.restart().await;
        true
    }
}

/// As a receiver of CloudEvents reads it: its attributes are percent-encoded, other headers are not.
fn received(request: &Request) -> Received {
    let header = |name: &str| request.headers.get(name).cloned();
    let decoded = |name: &str| header(name).map(|value| percent_decoded(&value));
    let decode = |(name, value): (&String, &String)| match name.starts_with("ce-") {
        true => (name.clone(), percent_decoded(value)),
        false => (name.clone(), value.clone()),
    };
    Received {
        id: header("webhook-id").unwrap_or_default(),
        name: decoded("ce-type").unwrap_or_default(),
        key: decoded("ce-partitionkey"),
        data: request.body.clone(),
        headers: request.headers.iter().map(decode).collect(),
    }
}

fn percent_decoded(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = str::from_utf8(&digits).expect("two digits");
                bytes.push(u8::from_str_radix(digits, 16).expect("hex"));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

fn to(address: SocketAddr) -> WebhookBuilder {
    Webhook::builder(&format!("http://{address}/hooks"), secret(SECRET))
        .allow_http()
        .allow_internal()
}

fn secret(text: &str) -> Secret {
    Secret::new(text).expect("a secret")
}

/// An HTTP server on a runtime of its own, so that ending it ends all its connections.
struct Receiver {
    address: SocketAddr,
    state: Arc<Heard>,
    runtime: Option<Runtime>,
}

struct Heard {
    verifier: standardwebhooks::Webhook,
    requests: Mutex<Vec<Request>>,
    answer: Mutex<Answer>,
    /// How many requests are being answered.
    active: AtomicUsize,
}

#[derive(Clone, Copy)]
enum Answer {
    Status(u16),
    /// A status with a `Retry-After`.
    Later(u16, &'static str),
    Redirect,
    Never,
}

#[derive(Clone, Debug)]
struct Request {
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    accepted: bool,
}

impl Receiver {
    fn start(secret: &str) -> Self {
        let state = Arc::new(Heard {
            verifier: standardwebhooks::Webhook::new(secret).expect("a secret"),
            requests: Mutex::default(),
            answer: Mutex::new(Answer::Status(200)),
            active: AtomicUsize::new(0),
        });
        let (runtime, address) =
            serve(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::clone(&state)).expect("a free port");
        Self {
            address,
            state,
            runtime: Some(runtime),
        }
    }

    /// Ends in the middle of whatever it is at, and comes back where it was.
    async fn restart(&mut self) {
        self.stop();
        let (address, state) = (self.address, Arc::clone(&self.state));
        let again = move || ready(serve(address, Arc::clone(&state)));
        let (runtime, _) = eventually(BOUND, again).await;
        self.runtime = Some(runtime);
    }

    fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    fn answers(&self, answer: Answer) {
        *lock(&self.state.answer) = answer;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Heard {
    fn requests(&self) -> Vec<Request> {
        lock(&self.requests).clone()
    }

    fn accepted(&self) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.accepted);
        requests
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(address: SocketAddr, state: Arc<Heard>) -> std::io::Result<(Runtime, SocketAddr)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let listener = {
        let _inside = runtime.enter();
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address).and_then(|()| socket.listen(1024))
    };
    let listener: TcpListener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            runtime.shutdown_background();
            return Err(error);
        }
    };
    let address = listener.local_addr()?;
    let router = Router::new()
        .fallback(answer)
        .layer(DefaultBodyLimit::disable())
        .with_state(state);
    runtime.spawn(async move { axum::serve(listener, router).await });
    Ok((runtime, address))
}

async fn answer(
    State(heard): State<Arc<Heard>>,
    path: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    heard.active.fetch_add(1, Ordering::SeqCst);
    let verified = heard.verifier.verify(&body, &headers).is_ok();
    let answer = *lock(&heard.answer);
    let answer = match answer {
        _ if !verified => Answer::Status(401),
        Answer::Status(200) if body.len() > LIMIT => Answer::Status(413),
        answer => answer,
    };
    let mut lines = BTreeMap::new();
    for (name, value) in &headers {
        let value = value.to_str().expect("ASCII").to_owned();
        let twice = lines.insert(name.to_string(), value);
        assert_eq!(twice, None, "{name} is there twice");
    }
    let request = Request {
        path: path.to_string(),
        headers: lines,
        body: body.to_vec(),
        accepted: matches!(answer, Answer::Status(200..=299)),
    };
    lock(&heard.requests).push(request);
    let response = match answer {
        Answer::Status(status) => {
            let status = StatusCode::from_u16(status).expect("a status");
            // What a bad receiver does: the event comes back in its answer.
            (status, body).into_response()
        }
        Answer::Later(status, when) => {
            let status = StatusCode::from_u16(status).expect("a status");
            (status, [(RETRY_AFTER, when)]).into_response()
        }
        Answer::Redirect => {
            (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "/inside")]).into_response()
        }
        Answer::Never => pending().await,
    };
    heard.active.fetch_sub(1, Ordering::SeqCst);
    response
}

fn is_fatal(answer: &Delivery) -> bool {
    matches!(answer, Delivery::Rejected(refused) if refused.is_fatal())
}

#[tokio::test]
async fn a_repeat_has_the_same_id_and_a_fresh_timestamp_and_signature() {
    let receiver = Receiver::start(SECRET);
    receiver.answers(Answer::Status(503));
    let sink = to(receiver.address).build().expect("a sink");
    let batch = events("orders", &[Some("ada")]);
    let distinct = |name: &str| -> BTreeSet<String> {
        let all = receiver.state.requests();
        all.iter()
            .map(|request| request.headers[name].clone())
            .collect()
    };
    eventually(BOUND, async || {
        let answers = sink.publish(&batch).await;
        assert!(
            matches!(answers[0], Delivery::Unavailable(_)),
            "{answers:?}"
        );
        distinct("webhook-timestamp").len() > 1
    })
    .await;
    receiver.answers(Answer::Status(200));
    assert!(sink.publish(&batch).await[0].is_published());
    let id = batch[0].id.to_string();
    assert_eq!(distinct("webhook-id"), BTreeSet::from([id.clone()]));
    let quoted = format!("\"{id}\"");
    assert_eq!(distinct("idempotency-key"), BTreeSet::from([quoted]));
    assert_eq!(distinct("ce-id"), BTreeSet::from([id]));
    assert_eq!(
        distinct("webhook-signature").len(),
        distinct("webhook-timestamp").len()
    );
}

#[tokio::test]
async fn two_secrets_give_two_signatures_and_either_verifies() {
    for known in [SECRET, OTHER] {
        let receiver = Receiver::start(known);
        let both = to(receiver.address)
            .also_signed_with(secret(OTHER))
            .build()
            .expect("a sink");
        let batch = events("orders", &[None]);
        assert_eq!(both.publish(&batch).await, [Delivery::Published]);
        let signatures = receiver.state.accepted()[0].headers["webhook-signature"].clone();
        let signatures: Vec<_> = signatures.split(' ').collect();
        assert_eq!(signatures.len(), 2, "{signatures:?}");
        assert!(signatures.iter().all(|one| one.starts_with("v1,")));

        let one = to(receiver.address).build().expect("a sink");
        let answers = one.publish(&batch).await;
        assert_eq!(answers[0].is_published(), known == SECRET, "{answers:?}");
    }
}

#[tokio::test]
async fn each_status_means_what_the_table_says() {
    let receiver = Receiver::start(SECRET);
    let sink = to(receiver.address).build().expect("a sink");
    let batch = events("orders", &[Some("ada")]);
    for (statuses, meaning) in [
        (&[200, 201, 202, 204, 299][..], "published"),
        (&[429, 502, 503, 504, 507, 522, 599], "unavailable"),
        (&[410, 413], "refused for good"),
        (
            &[
                300, 304, 400, 401, 403, 404, 408, 409, 422, 425, 431, 451, 500, 501,
            ],
            "rejected",
        ),
    ] {
        for status in statuses {
            receiver.answers(Answer::Status(*status));
            let answers = sink.publish(&batch).await;
            let found = match &answers[0] {
                Delivery::Published => "published",
                Delivery::Unavailable(_) => "unavailable",
                Delivery::Rejected(refused) if refused.is_fatal() => "refused for good",
                Delivery::Rejected(_) => "rejected",
                Delivery::Held => "held",
            };
            assert_eq!(found, meaning, "{status}: {answers:?}");
        }
    }
}

#[tokio::test]
async fn a_receiver_that_says_when_to_come_again_is_believed() {
    let receiver = Receiver::start(SECRET);
    let sink = to(receiver.address).build().expect("a sink");
    let batch = events("orders", &[Some("ada")]);
    for (status, when, seconds) in [
        (429, "7", 7),
        (503, " 120 ", 120),
        (503, "Wed, 21 Oct 2026 07:28:00 GMT", 0),
        (503, "-1", 0),
        (503, "", 0),
        (502, "7", 0),
    ] {
        receiver.answers(Answer::Later(status, when));
        let answers = sink.publish(&batch).await;
        let Delivery::Unavailable(down) = &answers[0] else {
            panic!("{status}: {answers:?}");
        };
        let expected = Duration::from_secs(seconds);
        assert_eq!(down.at_least(), expected, "{status}, {when:?}");
    }
}

#[tokio::test]
async fn redirects_and_proxies_of_the_client_are_not_followed() {
    let receiver = Receiver::start(SECRET);
    let nowhere = reqwest::Proxy::all("http://127.0.0.1:1").expect("a proxy");
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::limited(5))
        .proxy(nowhere);
    let sink = to(receiver.address).client(client).build().expect("a sink");
    let batch = events("orders", &[Some("ada")]);
    assert_eq!(sink.publish(&batch).await, [Delivery::Published]);
    receiver.answers(Answer::Redirect);
    let answers = sink.publish(&batch).await;
    assert_eq!(answers, [Delivery::rejected("the receiver answers 307")]);
    let paths: Vec<_> = receiver
        .state
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert_eq!(paths, ["/hooks", "/hooks"]);
}

#[tokio::test]
async fn a_slow_receiver_is_cut_off_and_only_so_many_wait_for_it() {
    let receiver = Receiver::start(SECRET);
    receiver.answers(Answer::Never);
    let timeout = Duration::from_secs(2);
    let sink = to(receiver.address)
        .concurrency(3)
        .timeout(timeout)
        .build()
        .expect("a sink");
    let published = tokio::spawn(async move { sink.publish(&events("orders", &[None; 4])).await });
    eventually(BOUND, async || {
        receiver.state.active.load(Ordering::SeqCst) >= 3
    })
    .await;
    assert_eq!(receiver.state.active.load(Ordering::SeqCst), 3);
    receiver.answers(Answer::Status(200));
    let in_time = tokio::time::timeout(BOUND, published).await;
    let answers = in_time.expect("cut off").expect("answers");
    let slow = Delivery::unavailable("no answer within 2s");
    assert_eq!(
        answers,
        [slow.clone(), slow.clone(), slow, Delivery::Published]
    );
}

/// Answers these in turn, and counts.
struct Answering(Vec<SocketAddr>, AtomicUsize);

impl Answering {
    fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Arc<Self> {
        Arc::new(Self(addresses.into_iter().collect(), AtomicUsize::new(0)))
    }
}

impl Resolve for Answering {
    fn resolve(&self, _: Name) -> Resolving {
        let turn = self.1.fetch_add(1, Ordering::SeqCst);
        let address = self.0[turn % self.0.len()];
        Box::pin(async move { Ok(Box::new([address].into_iter()) as Addrs) })
    }
}

#[tokio::test]
async fn a_name_with_an_internal_address_is_not_connected_to() {
    let receiver = Receiver::start(SECRET);
    let proxy = Proxy::to(receiver.address);
    let batch = events("orders", &[Some("ada")]);
    let port = proxy.address().port();
    let url = format!("http://hooks.example:{port}/");
    let builder = || Webhook::builder(&url, secret(SECRET)).allow_http();

    let inside = Answering::new([SocketAddr::from(([127, 0, 0, 1], 0))]);
    let sink = builder().resolver(inside.clone()).build().expect("a sink");
    let answers = sink.publish(&batch).await;
    let refused = Delivery::unavailable("no connection: the host has an internal address");
    assert_eq!(answers, std::slice::from_ref(&refused));
    assert_eq!(
        (inside.1.load(Ordering::SeqCst), proxy.connections()),
        (1, 0)
    );

    // The same on a network that is trusted: the resolver is what the connection is made with.
    let trusted = builder().allow_internal().resolver(inside).build();
    assert!(trusted.expect("a sink").publish(&batch).await[0].is_published());

    // By the system's resolver.
    let sink = Webhook::builder(&format!("http://localhost:{port}/"), secret(SECRET));
    let sink = sink.allow_http().build().expect("a sink");
    assert_eq!(sink.publish(&batch).await, [refused]);
    assert_eq!(receiver.state.requests().len(), 1);
}

#[tokio::test]
async fn a_name_that_changes_its_mind_gains_nothing() {
    let receiver = Receiver::start(SECRET);
    let port = receiver.address.port();
    // Nobody answers at the first one: the attempt ends by its timeout, or because there is no network.
    let public = SocketAddr::from(([8, 8, 8, 8], 0));
    let inside = SocketAddr::from(([127, 0, 0, 1], 0));
    let rebinding = Answering::new([public, inside]);
    let sink = Webhook::builder(&format!("http://hooks.example:{port}/"), secret(SECRET))
        .allow_http()
        .resolver(rebinding.clone())
        .timeout(Duration::from_millis(200))
        .build()
        .expect("a sink");
    let batch = events("orders", &[Some("ada")]);
    for _ in 0..4 {
        let answers = sink.publish(&batch).await;
        assert!(
            matches!(answers[0], Delivery::Unavailable(_)),
            "{answers:?}"
        );
    }
    assert_eq!(rebinding.1.load(Ordering::SeqCst), 4);
    assert!(receiver.state.requests().is_empty());
}

#[test]
fn urls_to_the_inside_are_refused_when_the_sink_is_built() {
    let refused = |url: &str, http: bool| {
        let builder = Webhook::builder(url, secret(SECRET));
        let builder = if http { builder.allow_http() } else { builder };
        builder.build().err().map(|error| match error {
            InvalidWebhook::Url => "url",
            InvalidWebhook::NotHttps => "not https",
            InvalidWebhook::Credentials => "credentials",
            InvalidWebhook::Internal => "internal",
            _ => "other",
        })
    };
    for (url, expected) in [
        ("https://shop.example/hooks", None),
        ("https://8.8.8.8/", None),
        ("https://[2606:4700:4700::1111]:8443/", None),
        ("", Some("url")),
        ("/hooks", Some("url")),
        ("https://", Some("url")),
        ("https://256.1.1.1/", Some("url")),
        ("http://shop.example/", Some("not https")),
        ("ftp://shop.example/", Some("not https")),
        ("file:///etc/passwd", Some("not https")),
        ("https://user@shop.example/", Some("credentials")),
        ("https://user:word@shop.example/", Some("credentials")),
        ("https://:word@shop.example/", Some("credentials")),
        ("https://127.0.0.1/", Some("internal")),
        ("https://127.0.0.1./", Some("internal")),
        ("https://127.1/", Some("internal")),
        ("https://0177.0.0.1/", Some("internal")),
        ("https://0x7f000001/", Some("internal")),
        ("https://2130706433/", Some("internal")),
        ("https://①②⑦.0.0.1/", Some("internal")),
        ("https://%31%32%37.0.0.1/", Some("internal")),
        ("https://0/", Some("internal")),
        ("https://169.254.169.254/latest", Some("internal")),
        ("https://100.100.100.200/", Some("internal")),
        ("https://[::1]/", Some("internal")),
        ("https://[::]/", Some("internal")),
        ("https://[::ffff:127.0.0.1]/", Some("internal")),
        ("https://[::ffff:7f00:1]/", Some("internal")),
        ("https://[64:ff9b::7f00:1]/", Some("internal")),
        ("https://[2002:7f00:1::]/", Some("internal")),
        ("https://[fd00:ec2::254]/", Some("internal")),
        ("https://[fe80::1]/", Some("internal")),
    ] {
        assert_eq!(refused(url, false), expected, "{url}");
    }
    assert_eq!(refused("http://shop.example/", true), None);
    assert_eq!(refused("http://10.0.0.1/", true), Some("internal"));
    assert_eq!(refused("gopher://shop.example/", true), Some("not https"));
    let trusted = Webhook::builder("https://10.0.0.1/", secret(SECRET)).allow_internal();
    assert!(trusted.build().is_ok());
}

#[tokio::test]
async fn an_events_own_headers_replace_none_of_the_sinks() {
    let receiver = Receiver::start(SECRET);
    let sink = to(receiver.address).build().expect("a sink");
    let mut batch = events("orders", &[Some("ada")]);
    let names = [
        "Webhook-Id",
        "webhook-timestamp",
        "webhook-signature",
        "Idempotency-Key",
        "ce-id",
        "ce-type",
        "ce-subject",
        "content-type",
        "content-length",
        "Host",
        "transfer-encoding",
        "Authorization",
        "proxy-authorization",
        "cookie",
        "connection",
        "X-Tenant",
    ];
    batch[0].headers = names.map(|name| (name.to_owned(), "1".to_owned())).into();
    assert_eq!(sink.publish(&batch).await, [Delivery::Published]);
    let headers = receiver.state.accepted()[0].headers.clone();
    let ours = headers.iter().filter(|(_, value)| *value == "1");
    let ours: Vec<_> = ours.map(|(name, _)| name.as_str()).collect();
    assert_eq!(ours, ["x-tenant"]);
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["host"], receiver.address.to_string());
    assert!(headers["user-agent"].starts_with("effectively/"));
}

#[tokio::test]
async fn what_http_cannot_carry_is_refused_for_good_and_unsent() {
    let receiver = Receiver::start(SECRET);
    let sink = to(receiver.address).build().expect("a sink");
    let [mut split, mut foreign, mut name, mut binary] =
        <[Envelope; 4]>::try_from(events("orders", &[None; 4])).expect("four");
    split.headers = BTreeMap::from([("x-a".into(), "1\r\nx-secret: 2".into())]);
    foreign.headers = BTreeMap::from([("x-a".into(), "Jürgen".into())]);
    name.headers = BTreeMap::from([("x a".into(), "1".into())]);
    binary.data = vec![b'"', 0xFF, b'"'];
    let answers = sink.publish(&[split, foreign, name, binary]).await;
    assert!(answers.iter().all(is_fatal), "{answers:?}");
    let said = format!("{answers:?}");
    assert!(!said.contains("secret") && !said.contains("rgen"), "{said}");
    assert!(receiver.state.requests().is_empty());
}

#[tokio::test]
async fn attributes_of_any_text_arrive() {
    let receiver = Receiver::start(SECRET);
    let sink = to(receiver.address).build().expect("a sink");
    let key = " grün, \"blau\"\r\n100 %25 😀\0";
    let mut batch = events("orders", &[Some(key)]);
    batch[0].source = "/läden?x=1 2".into();
    assert_eq!(sink.publish(&batch).await, [Delivery::Published]);
    let got = received(&receiver.state.accepted()[0]);
    assert_eq!(got.key.as_deref(), Some(key));
    assert_eq!(got.headers["ce-source"], "/läden?x=1 2");
    assert_eq!(got.headers["ce-specversion"], "1.0");
}

#[tokio::test]
async fn no_secret_and_no_payload_is_shown() {
    let logs = LogCapture::global();
    let mut receiver = Receiver::start(OTHER);
    let url = format!("http://{}/hidden-path?hidden=query", receiver.address);
    let mut token = reqwest::header::HeaderValue::from_static("Bearer hidden-token");
    token.set_sensitive(true);
    let tokens = HeaderMap::from_iter([(reqwest::header::AUTHORIZATION, token)]);
    let builder = Webhook::builder(&url, secret(OTHER))
        .allow_http()
        .allow_internal()
        .client(reqwest::Client::builder().default_headers(tokens))
        .timeout(Duration::from_millis(300));
    let mut shown = format!("{builder:?} {:?}", secret(OTHER));
    let sink = builder.build().expect("a sink");
    shown += &format!("{sink:?}");
    let mut batch = events("orders", &[Some("hidden-key")]);
    batch[0].data = br#""hidden-payload""#.to_vec();
    for answer in [
        Answer::Status(200),
        Answer::Status(500),
        Answer::Status(400),
        Answer::Status(503),
        Answer::Redirect,
        Answer::Never,
    ] {
        receiver.answers(answer);
        shown += &format!("{:?}", sink.publish(&batch).await);
    }
    receiver.stop();
    let down = sink.publish(&batch).await;
    assert!(matches!(down[0], Delivery::Unavailable(_)), "{down:?}");
    shown += &format!("{down:?}");
    let requests = receiver.state.requests();
    assert_eq!(requests.len(), 6);
    assert_eq!(requests[0].headers["authorization"], "Bearer hidden-token");

    let mut hidden = vec!["hidden", "MfKQ"];
    let signatures = requests.iter().map(|one| &one.headers["webhook-signature"]);
    hidden.extend(signatures.map(|one| one.trim_start_matches("v1,")));
    for text in hidden {
        assert!(!shown.contains(text), "{text}: {shown}");
        let lines = logs.lines_with(text);
        assert!(lines.is_empty(), "{text}: {lines:#?}");
    }
}
