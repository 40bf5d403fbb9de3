//! What is sent beside the event's data, and what is shown of it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::HeaderMap;
use effectively::Envelope;
use effectively::sink::webhook::Webhook;
use effectively::sink::{Delivery, Sink};
use effectively::testing::sink::events;
use effectively_tests::LogCapture;

use crate::receiver::{Answer, Receiver};
use crate::{OTHER, SECRET, is_fatal, received, secret, to};

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
