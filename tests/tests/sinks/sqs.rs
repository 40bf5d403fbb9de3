//! The sink of SQS against the conformance suite, a real server and one that answers what it is told to.

// A test that cannot go on says why and stops.
#![allow(clippy::expect_used)]

use std::{
    collections::BTreeMap,
    env,
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use aws_sdk_sqs::{
    Client, Config,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
    types::{Message, MessageSystemAttributeName, QueueAttributeName},
};
use axum::{Router, body::Bytes, http::StatusCode};
use effectively::{
    Envelope,
    sink::{Delivery, Sink, sqs::Sqs},
    testing::sink::{self, Received, Rig},
};
use effectively_tests::Proxy;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::Instant};

effectively::sink_conformance!(rig);

const VARIABLE: &str = "EFFECTIVELY_TEST_SQS";
const LIMIT: usize = 262_144;
const BOUND: Duration = Duration::from_secs(30);

/// Only a FIFO queue keeps an order, as the suite asks for it.
async fn rig() -> Option<Queues> {
    Some(Queues::at(server()?, true))
}

async fn standard() -> Option<Queues> {
    Some(Queues::at(server()?, false))
}

/// The address of the shared server. Says so if there is none.
fn server() -> Option<SocketAddr> {
    let url = env::var(VARIABLE).unwrap_or_default();
    if !url.is_empty() {
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        return Some(address.parse().expect("http://address:port"));
    }
    let promised = env::var_os("EFFECTIVELY_TEST_SERVERS").is_some();
    assert!(
        !promised,
        "{VARIABLE} is not set although the servers were promised"
    );
    let this_thread = thread::current();
    let test = this_thread.name().unwrap_or("a test");
    let _ = writeln!(io::stderr().lock(), "SKIPPED {test}: {VARIABLE} is not set");
    None
}

fn client(address: SocketAddr) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(format!("http://{address}"))
        .region(Region::new("elasticmq"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .retry_config(RetryConfig::disabled());
    Client::from_conf(config.build())
}

struct Queues {
    server: SocketAddr,
    /// Stands before the server, so that connections can be cut. The client asks it for each URL, whatever host is in that.
    proxy: Arc<Proxy>,
    fifo: bool,
}

impl Queues {
    fn at(server: SocketAddr, fifo: bool) -> Self {
        let proxy = Arc::new(Proxy::to(server));
        Self {
            server,
            proxy,
            fifo,
        }
    }

    fn build(&self) -> Sqs {
        let sink = Sqs::new(client(self.proxy.address())).max_bytes(LIMIT);
        if self.fifo { sink.fifo() } else { sink }
    }

    fn queue(&self, topic: &str) -> String {
        let suffix = if self.fifo { ".fifo" } else { "" };
        format!("{}{suffix}", topic.replace('.', "-"))
    }

    async fn create(&self, topic: &str) -> String {
        let client = client(self.server);
        let mut queue = client.create_queue().queue_name(self.queue(topic));
        if self.fifo {
            queue = queue.attributes(QueueAttributeName::FifoQueue, "true");
        }
        let created = queue.send().await.expect("a queue");
        created.queue_url.expect("its URL")
    }

    /// Reads and deletes, until so many are there, and then until nothing more comes.
    async fn messages(&self, topic: &str, at_least: usize) -> Vec<Message> {
        let client = client(self.server);
        let url = client.get_queue_url().queue_name(self.queue(topic));
        let url = url
            .send()
            .await
            .expect("an answer")
            .queue_url
            .expect("a URL");
        let (mut all, end) = (Vec::new(), Instant::now() + BOUND);
        while Instant::now() < end {
            let receive = client.receive_message().queue_url(&url);
            let receive = receive
                .max_number_of_messages(10)
                .message_attribute_names("All");
            let receive = receive.message_system_attribute_names(MessageSystemAttributeName::All);
            let more = receive
                .send()
                .await
                .expect("an answer")
                .messages
                .unwrap_or_default();
            if more.is_empty() && all.len() >= at_least {
                break;
            }
            for message in more {
                let handle = message.receipt_handle.clone().expect("a handle");
                let delete = client
                    .delete_message()
                    .queue_url(&url)
                    .receipt_handle(handle);
                delete.send().await.expect("deleted");
                all.push(message);
            }
        }
        all
    }
}

fn received(message: &Message) -> Received {
    let body = message.body().expect("a body");
    let (_, data) = body.split_once("\"data\":").expect("data");
    let event: Value = serde_json::from_str(body).expect("JSON");
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in event.as_object().expect("an object") {
        headers.extend(value.as_str().map(|text| (name.clone(), text.to_owned())));
    }
    for (name, value) in message.message_attributes().into_iter().flatten() {
        headers.extend(
            value
                .string_value()
                .map(|text| (name.clone(), text.to_owned())),
        );
    }
    Received {
        id: headers["id"].clone(),
        name: headers["type"].clone(),
        key: headers.get("partitionkey").cloned(),
        data: data.strip_suffix('}').expect("its end").as_bytes().to_vec(),
        headers,
    }
}

impl Rig for Queues {
    type Sink = Sqs;

    async fn sink(&mut self) -> Sqs {
        self.build()
    }

    async fn topic(&mut self) -> String {
        let topic = unique();
        self.create(&topic).await;
        topic
    }

    async fn received(&mut self, topic: &str, at_least: usize) -> Vec<Received> {
        let messages = self.messages(topic, at_least).await;
        messages.iter().map(received).collect()
    }

    fn missing_topic(&mut self) -> Option<String> {
        Some(unique())
    }

    fn oversized(&mut self) -> Option<usize> {
        Some(LIMIT)
    }

    fn cut_soon(&mut self) -> bool {
        let proxy = self.proxy.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(40));
            proxy.sever();
        });
        true
    }
}

fn unique() -> String {
    format!("test.{}", sink::events("", &[None])[0].id)
}

fn event(topic: &str) -> Envelope {
    sink::events(topic, &[None]).remove(0)
}

fn is_refused_for_good(answer: &Delivery) -> bool {
    matches!(answer, Delivery::Rejected(rejected) if rejected.is_fatal())
}

#[test]
fn a_queue_without_order_gets_everything_too() {
    sink::run(async {
        let Some(rig) = standard().await else { return };
        sink::headers_and_ids_round_trip(rig).await;
        let Some(rig) = standard().await else { return };
        sink::a_missing_topic_is_no_success(rig).await;
        let Some(rig) = standard().await else { return };
        sink::what_is_sent_again_has_the_same_id(rig).await;
    });
}

#[test]
fn a_batch_may_be_longer_than_a_request() {
    sink::run(async {
        let Some(mut rig) = rig().await else { return };
        let (sink, first, second) = (rig.build(), rig.topic().await, rig.topic().await);
        let mut batch = Vec::new();
        for number in 0..23 {
            let mut event = event(if number % 3 == 0 { &second } else { &first });
            // More than two do not fit into one request together.
            let length = if number > 15 { LIMIT / 3 } else { 10 };
            event.data = format!("\"{}\"", "x".repeat(length)).into_bytes();
            batch.push(event);
        }
        let answers = sink.publish(&batch).await;
        assert_eq!(answers, vec![Delivery::Published; batch.len()]);
        for (topic, count) in [(&first, 15), (&second, 8)] {
            let received = rig.received(topic, count).await;
            let of_topic = batch.iter().filter(|event| event.topic == *topic);
            let mut sent: Vec<_> = of_topic.map(|event| event.id.to_string()).collect();
            let mut got: Vec<_> = received.into_iter().map(|got| got.id).collect();
            sent.sort();
            got.sort();
            assert_eq!(got, sent);
        }
    });
}

#[test]
fn a_fifo_queue_drops_what_it_had() {
    sink::run(async {
        let Some(mut rig) = rig().await else { return };
        let (sink, topic) = (rig.build(), rig.topic().await);
        let batch = [event(&topic), event(&topic)];
        for at_least in [2, 0] {
            assert_eq!(
                sink.publish(&batch).await,
                [Delivery::Published, Delivery::Published]
            );
            assert_eq!(rig.received(&topic, at_least).await.len(), at_least);
        }
    });
}

#[test]
fn any_key_has_a_group() {
    sink::run(async {
        let Some(mut rig) = rig().await else { return };
        let (sink, topic) = (rig.build(), rig.topic().await);
        let long = "k".repeat(129);
        let keys = ["plain-1", "", "with space", "ключ", &long, "tab\t"].map(Some);
        let batch = sink::events(&topic, &keys);
        assert_eq!(
            sink.publish(&batch).await,
            vec![Delivery::Published; batch.len()]
        );
        let again = sink::events(&topic, &keys);
        assert_eq!(
            sink.publish(&again).await,
            vec![Delivery::Published; batch.len()]
        );
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for message in rig.messages(&topic, 2 * batch.len()).await {
            let system = message.attributes().expect("attributes");
            let group = system[&MessageSystemAttributeName::MessageGroupId].clone();
            let key = received(&message).key.expect("a key");
            assert!(key != "plain-1" || group == key);
            groups.entry(group).or_default().push(key);
        }
        assert_eq!(groups.len(), keys.len(), "{groups:?}");
        assert!(
            groups
                .values()
                .all(|keys| keys.len() == 2 && keys[0] == keys[1])
        );
    });
}

#[test]
fn headers_that_sqs_does_not_take_are_refused_for_good() {
    sink::run(async {
        let Some(mut rig) = rig().await else { return };
        let (sink, topic) = (rig.build(), rig.topic().await);
        let with = |name: &str, value: &str| {
            let mut event = event(&topic);
            event.headers.insert(name.to_owned(), value.to_owned());
            event
        };
        let bad = [
            with("a name", "v"),
            with("AWS.x", "v"),
            with("amazon.x", "v"),
            with(".x", "v"),
            with("x.", "v"),
            with("x..y", "v"),
            with("", "v"),
            with("x", ""),
            with("x", "\u{1}"),
            with("x", "\u{ffff}"),
            with(&"x".repeat(257), "v"),
        ];
        let mut many = event(&topic);
        many.headers = (0..11)
            .map(|number| (format!("h{number}"), "v".to_owned()))
            .collect();
        let mut ten = many.clone();
        ten.headers.pop_last();
        let good = [
            ten,
            with("A_z-0.9", "tab\t and ü"),
            with(&"x".repeat(256), "v"),
        ];
        let batch: Vec<_> = bad.into_iter().chain([many]).chain(good.clone()).collect();
        let answers = sink.publish(&batch).await;
        let (refused, taken) = answers.split_at(12);
        assert!(refused.iter().all(is_refused_for_good), "{refused:?}");
        assert_eq!(
            taken,
            [
                Delivery::Published,
                Delivery::Published,
                Delivery::Published
            ]
        );
        let received = rig.received(&topic, 3).await;
        for event in &good {
            let id = event.id.to_string();
            let got = received
                .iter()
                .find(|got| got.id == id)
                .expect("it is there");
            assert!(
                event
                    .headers
                    .iter()
                    .all(|(name, value)| got.headers.get(name) == Some(value))
            );
        }
    });
}

#[test]
fn text_that_sqs_does_not_take_is_escaped() {
    sink::run(async {
        let Some(mut rig) = rig().await else { return };
        let (sink, topic) = (rig.build(), rig.topic().await);
        let mut event = event(&topic);
        let text = "\u{fffe} \u{ffff} \u{1f600} \u{1} \u{7f}";
        event.data = serde_json::to_vec(text).expect("JSON");
        event.source = "/a \"quoted\" \u{ffff} source".into();
        assert_eq!(sink.publish(&[event]).await, [Delivery::Published]);
        let message = &rig.messages(&topic, 1).await[0];
        let body = message.body().expect("a body");
        assert!(!body.contains(['\u{fffe}', '\u{ffff}']));
        let body: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["data"], text);
        assert_eq!(body["source"], "/a \"quoted\" \u{ffff} source");
        assert_eq!(body["datacontenttype"], "application/json");
    });
}

#[test]
fn a_topic_may_have_a_queue_of_any_name() {
    sink::run(async {
        let Some(mut rig) = rig().await else { return };
        let (topic, url) = (rig.topic().await, rig.create(&unique()).await);
        // The URL says that it is FIFO, although the option is not set.
        let sink = Sqs::new(client(rig.server)).queue("orders", rig.create(&topic).await);
        let sink = sink.queue("others", url);
        let batch = [event("orders"), event("others")];
        assert_eq!(
            sink.publish(&batch).await,
            [Delivery::Published, Delivery::Published]
        );
        assert_eq!(rig.received(&topic, 1).await[0].id, batch[0].id.to_string());
    });
}

#[test]
fn what_the_server_finds_too_large_is_no_success() {
    sink::run(async {
        let Some(mut rig) = rig().await else { return };
        let (sink, topic) = (rig.build().max_bytes(10 * LIMIT), rig.topic().await);
        let mut batch = [event(&topic), event(&topic)];
        batch[0].data = format!("\"{}\"", "x".repeat(5 * LIMIT)).into_bytes();
        let answers = sink.publish(&batch).await;
        assert!(matches!(answers[0], Delivery::Rejected(_)), "{answers:?}");
        assert_eq!(answers[1], Delivery::Published);
    });
}

#[test]
fn a_silent_server_is_unavailable() {
    sink::run(async {
        let Some(mut rig) = rig().await else { return };
        let (sink, topic) = (
            rig.build().timeout(Duration::from_millis(500)),
            rig.topic().await,
        );
        let batch = [event(&topic)];
        rig.proxy.black_hole(true);
        let answers = sink.publish(&batch).await;
        assert_eq!(
            answers,
            [Delivery::unavailable("SQS did not confirm it in time")]
        );
        rig.proxy.black_hole(false);
        assert_eq!(
            sink.timeout(BOUND).publish(&batch).await,
            [Delivery::Published]
        );
    });
}

type Answer = dyn Fn(&[String]) -> (StatusCode, Value) + Send + Sync;

/// Publishes so many events of so many bytes to a server that answers like this, given the ids of the request's entries. Gives
/// back the answers, and how many requests there were.
async fn told(
    events: usize,
    bytes: usize,
    answer: impl Fn(&[String]) -> (StatusCode, Value) + Send + Sync + 'static,
) -> (Vec<Delivery>, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let (answer, requests): (Arc<Answer>, _) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
    let count = requests.clone();
    let respond = move |body: Bytes| {
        count.fetch_add(1, Ordering::SeqCst);
        let request: Value = serde_json::from_slice(&body).expect("JSON");
        let entries = request["Entries"].as_array().expect("entries");
        let ids: Vec<_> = entries
            .iter()
            .map(|entry| entry["Id"].as_str().expect("an id").to_owned())
            .collect();
        let (status, answer) = answer(&ids);
        async move {
            (
                status,
                [("content-type", "application/x-amz-json-1.0")],
                answer.to_string(),
            )
        }
    };
    let server =
        tokio::spawn(async { axum::serve(listener, Router::new().fallback(respond)).await });
    let url = format!("http://{address}/queue");
    let sink = Sqs::new(client(address))
        .queue("orders", url)
        .timeout(BOUND);
    let mut batch: Vec<_> = (0..events).map(|_| event("orders")).collect();
    for event in &mut batch {
        event.data = vec![b'1'; bytes];
    }
    let answers = sink.publish(&batch).await;
    server.abort();
    (answers, requests.load(Ordering::SeqCst))
}

fn sent(id: &str) -> Value {
    json!({"Id": id, "MessageId": "m", "MD5OfMessageBody": "x"})
}

fn failed(id: &str, code: &str, sender: bool) -> Value {
    json!({"Id": id, "Code": code, "SenderFault": sender, "Message": "secret"})
}

#[test]
fn each_entry_has_an_answer_of_its_own() {
    sink::run(async {
        let (answers, _) = told(6, 10, |ids| {
            let answer = json!({
                "Successful": [sent(&ids[4]), sent(&ids[1]), sent("77"), sent("other")],
                "Failed": [
                    failed(&ids[0], "InvalidMessageContents", true),
                    failed(&ids[3], "InternalError", false),
                    failed(&ids[5], "KmsThrottled", true),
                ],
            });
            (StatusCode::OK, answer)
        })
        .await;
        let expected = [
            Delivery::rejected("SQS answered InvalidMessageContents"),
            Delivery::Published,
            Delivery::unavailable("SQS did not confirm it in time"),
            Delivery::unavailable("SQS answered InternalError"),
            Delivery::Published,
            Delivery::unavailable("SQS answered KmsThrottled"),
        ];
        assert_eq!(answers, expected);
    });
}

#[test]
fn a_server_in_trouble_is_unavailable() {
    sink::run(async {
        for (status, code) in [
            (StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure"),
            (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            (StatusCode::BAD_REQUEST, "RequestThrottled"),
            (StatusCode::FORBIDDEN, "AccessDeniedException"),
            (StatusCode::FORBIDDEN, "ExpiredTokenException"),
            (StatusCode::BAD_REQUEST, "KmsAccessDenied"),
        ] {
            let (answers, requests) = told(2, 10, move |_| {
                (status, json!({"__type": code, "message": "secret"}))
            })
            .await;
            let reason = format!("SQS answered {code}");
            assert_eq!(answers, vec![Delivery::unavailable(reason); 2]);
            assert_eq!(requests, 1);
        }
    });
}

#[test]
fn one_bad_message_does_not_refuse_a_whole_request() {
    sink::run(async {
        let bad: Arc<Mutex<Option<String>>> = Arc::default();
        let (answers, requests) = told(4, 10, move |ids| {
            let mut bad = bad.lock().expect("unpoisoned");
            let bad = bad.get_or_insert_with(|| ids[2].clone());
            if ids.contains(bad) {
                let answer = json!({"__type": "com.amazonaws.sqs#InvalidParameterValue", "message": "secret"});
                return (StatusCode::BAD_REQUEST, answer);
            }
            let sent: Vec<_> = ids.iter().map(|id| sent(id)).collect();
            (StatusCode::OK, json!({"Successful": sent, "Failed": []}))
        })
        .await;
        let mut expected = vec![Delivery::Published; 4];
        expected[2] = Delivery::rejected("SQS answered InvalidParameterValue");
        assert_eq!(answers, expected);
        assert_eq!(requests, 5);
    });
}

#[test]
fn no_request_is_larger_than_sqs_takes() {
    sink::run(async {
        for (bytes, expected) in [(10, 1), (LIMIT / 3, 3), (LIMIT - 1000, 5)] {
            let (answers, requests) = told(5, bytes, |ids| {
                let sent: Vec<_> = ids.iter().map(|id| sent(id)).collect();
                (StatusCode::OK, json!({"Successful": sent, "Failed": []}))
            })
            .await;
            assert_eq!(answers, vec![Delivery::Published; 5]);
            assert_eq!(requests, expected, "{bytes}");
        }
    });
}
