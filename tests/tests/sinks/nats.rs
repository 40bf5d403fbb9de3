//! The sink of NATS JetStream against the conformance suite, on a real server, and the traps of its own.

// A test that cannot go on says why and stops.
#![allow(clippy::expect_used)]

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use async_nats::jetstream::{self, ContextBuilder, stream};
use effectively::Envelope;
use effectively::sink::{Delivery, Sink, nats::Nats};
use effectively::testing::sink::{Received, Rig, events, run};
use effectively_tests::{Proxy, eventually};
use futures_util::StreamExt;
use tempfile::TempDir;

effectively::sink_conformance!(rig);

/// On a server that a test may kill.
mod own_server {
    effectively::sink_conformance!(@cases super::own_rig: a_restart_in_the_middle_loses_nothing,);
}

const VARIABLE: &str = "EFFECTIVELY_TEST_NATS";
const SERVERS_ARE_STARTED: &str = "EFFECTIVELY_TEST_SERVERS";
/// Much less than the client's 5 s, so that a lost answer costs a test little.
const ACK_TIMEOUT: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(20);
/// The server's default `max_payload`.
const MAX_PAYLOAD: usize = 1024 * 1024;

struct NatsRig {
    proxy: Arc<Proxy>,
    direct: jetstream::Context,
    streams: BTreeMap<String, stream::Stream>,
    server: Option<PrivateServer>,
}

async fn rig() -> Option<NatsRig> {
    let Some(url) = env::var(VARIABLE).ok().filter(|url| !url.is_empty()) else {
        assert!(
            env::var_os(SERVERS_ARE_STARTED).is_none(),
            "{VARIABLE} is not set although {SERVERS_ARE_STARTED} is"
        );
        skipped(&format!(
            "{VARIABLE} is not set; ./tests/run starts a server"
        ));
        return None;
    };
    let address = url.trim_start_matches("nats://").parse();
    Some(NatsRig::on(address.expect("an address with a port")).await)
}

async fn own_rig() -> Option<NatsRig> {
    let server = PrivateServer::start()?;
    let mut rig = NatsRig::on(server.address).await;
    rig.server = Some(server);
    Some(rig)
}

impl NatsRig {
    async fn on(address: SocketAddr) -> Self {
        Self {
            proxy: Arc::new(Proxy::to(address)),
            direct: connect(address).await,
            streams: BTreeMap::new(),
            server: None,
        }
    }

    async fn stream(&mut self, config: stream::Config) -> String {
        let subject = unique();
        let config = stream::Config {
            name: subject.clone(),
            subjects: vec![subject.clone()],
            ..config
        };
        let stream = self.direct.create_stream(config).await;
        self.streams
            .insert(subject.clone(), stream.expect("a stream"));
        subject
    }
}

async fn connect(address: SocketAddr) -> jetstream::Context {
    let client = async_nats::ConnectOptions::new()
        .reconnect_delay_callback(|_| Duration::from_millis(20))
        .connect(address.to_string())
        .await;
    ContextBuilder::new()
        .timeout(ACK_TIMEOUT)
        .build(client.expect("a server"))
}

impl Rig for NatsRig {
    type Sink = Nats;

    async fn sink(&mut self) -> Nats {
        Nats::new(connect(self.proxy.address()).await)
    }

    async fn topic(&mut self) -> String {
        self.stream(stream::Config::default()).await
    }

    async fn received(&mut self, topic: &str, at_least: usize) -> Vec<Received> {
        let stream = self.streams.get_mut(topic).expect("a topic of this rig");
        let patience = Instant::now() + SOON;
        let state = loop {
            let state = stream.info().await.expect("its state").state.clone();
            if state.messages >= at_least as u64 {
                break state;
            }
            assert!(Instant::now() < patience, "only {state:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let mut received = Vec::new();
        for sequence in state.first_sequence..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await.expect("a message");
            let headers: BTreeMap<_, _> = message
                .headers
                .iter()
                .map(|(name, values)| (name.to_string(), values[0].to_string()))
                .collect();
            received.push(Received {
                id: headers["Nats-Msg-Id"].clone(),
                name: headers["ce-type"].clone(),
                key: headers.get("ce-partitionkey").cloned(),
                data: message.payload.to_vec(),
                headers,
            });
        }
        received
    }

    fn missing_topic(&mut self) -> Option<String> {
        Some(unique())
    }

    fn oversized(&mut self) -> Option<usize> {
        Some(MAX_PAYLOAD)
    }

    fn cut_soon(&mut self) -> bool {
        let proxy = self.proxy.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            proxy.sever();
        });
        true
    }

    async fn restart(&mut self) -> bool {
        let Some(server) = &mut self.server else {
            return false;
        };
        server.restart();
        true
    }
}

/// A name that no other test has.
fn unique() -> String {
    format!("t{}", events("", &[None])[0].id.simple())
}

fn one(topic: &str) -> Vec<Envelope> {
    events(topic, &[Some("ada")])
}

fn skipped(why: &str) {
    let this_thread = thread::current();
    let test = this_thread.name().unwrap_or("a test").to_owned();
    // Straight to the handle: `eprintln!` would be captured.
    let _ = writeln!(io::stderr().lock(), "SKIPPED {test}: {why}");
}

/// A server of one test, in a directory of its own.
struct PrivateServer {
    address: SocketAddr,
    directory: TempDir,
    child: Child,
}

impl PrivateServer {
    /// `None`, and says so, if the program is not installed.
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        drop(listener);
        match Self::spawn(address, &directory) {
            Ok(child) => Some(Self {
                address,
                directory,
                child,
            }),
            Err(error) => {
                skipped(&format!("no nats-server: {error}"));
                None
            }
        }
    }

    fn spawn(address: SocketAddr, directory: &TempDir) -> io::Result<Child> {
        let log = directory.path().join("log");
        // Absent at the first start.
        let _ = fs::remove_file(&log);
        let mut child = Command::new("nats-server")
            .args(["-a", &address.ip().to_string(), "-js"])
            .args(["-p", &address.port().to_string(), "-l"])
            .arg(&log)
            .arg("-sd")
            .arg(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let patience = Instant::now() + SOON;
        // Its own log says it: on the port somebody else may answer.
        while !fs::read_to_string(&log).is_ok_and(|log| log.contains("Server is ready")) {
            assert!(Instant::now() < patience, "nats-server is not ready");
            assert!(child.try_wait()?.is_none(), "nats-server has ended");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(child)
    }

    fn stop(&mut self) {
        self.child.kill().expect("a running server");
        self.child.wait().expect("its end");
    }

    fn restart(&mut self) {
        self.stop();
        self.child = Self::spawn(self.address, &self.directory).expect("a server again");
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs one test with a rig.
fn with_rig(test: impl AsyncFnOnce(NatsRig)) {
    run(async {
        if let Some(rig) = rig().await {
            test(rig).await;
        }
    });
}

fn is_rejected(delivery: &Delivery, for_good: bool) -> bool {
    matches!(delivery, Delivery::Rejected(rejected) if rejected.is_fatal() == for_good)
}

#[test]
fn a_subject_without_a_stream_is_tried_again_until_there_is_one() {
    with_rig(async |mut rig| {
        let sink = rig.sink().await;
        let event = one(&unique());
        let answers = sink.publish(&event).await;
        assert!(is_rejected(&answers[0], false), "{answers:?}");
        let config = stream::Config {
            name: event[0].topic.clone(),
            subjects: vec![event[0].topic.clone()],
            ..Default::default()
        };
        rig.direct.create_stream(config).await.expect("a stream");
        assert_eq!(sink.publish(&event).await, [Delivery::Published]);
    });
}

#[test]
fn plain_subscribers_are_no_stream() {
    with_rig(async |mut rig| {
        let sink = rig.sink().await;
        let event = one(&unique());
        let client = rig.direct.client();
        let mut plain = client
            .subscribe(event[0].topic.clone())
            .await
            .expect("a subscription");
        // A flush is not heard of by the server; a message that comes back is.
        let probe = client.publish(event[0].topic.clone(), "probe".into());
        probe.await.expect("a connection");
        plain.next().await.expect("the probe");
        let answers = sink.publish(&event).await;
        assert!(plain.next().await.is_some(), "the subscriber has it");
        assert!(
            matches!(answers[0], Delivery::Unavailable(_)),
            "{answers:?}"
        );
    });
}

#[test]
fn what_is_too_large_for_its_stream_is_refused_for_good() {
    with_rig(async |mut rig| {
        let sink = rig.sink().await;
        let small = rig
            .stream(stream::Config {
                max_message_size: 2000,
                ..Default::default()
            })
            .await;
        let mut batch = events(&small, &[Some("ada"), Some("bob")]);
        batch[0].data = vec![b'1'; 3000];
        let answers = sink.publish(&batch).await;
        assert!(is_rejected(&answers[0], true), "{answers:?}");
        assert_eq!(answers[1], Delivery::Published);
    });
}

#[test]
fn a_full_stream_is_tried_again() {
    with_rig(async |mut rig| {
        let sink = rig.sink().await;
        let full = rig
            .stream(stream::Config {
                max_messages: 1,
                discard: stream::DiscardPolicy::New,
                ..Default::default()
            })
            .await;
        let answers = sink
            .publish(&events(&full, &[Some("ada"), Some("bob")]))
            .await;
        assert_eq!(answers[0], Delivery::Published);
        assert!(is_rejected(&answers[1], false), "{answers:?}");
    });
}

#[test]
fn a_repeat_is_published_and_stored_once() {
    with_rig(async |mut rig| {
        let (sink, topic) = (rig.sink().await, rig.topic().await);
        let event = one(&topic);
        for _ in 0..3 {
            assert_eq!(sink.publish(&event).await, [Delivery::Published]);
        }
        assert_eq!(rig.received(&topic, 1).await.len(), 1);
    });
}

#[test]
fn line_breaks_are_encoded_in_attributes_and_refused_in_headers() {
    with_rig(async |mut rig| {
        let (sink, topic) = (rig.sink().await, rig.topic().await);
        for (name, value) in [("a", "b\r\nNats-Rollup: all"), ("a\nb", "c"), ("a: b", "c")] {
            let mut event = one(&topic);
            event[0].headers = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            let answers = sink.publish(&event).await;
            assert!(is_rejected(&answers[0], true), "{name}: {answers:?}");
        }
        let event = events(&topic, &[Some("ada\r\nb: ü")]);
        assert_eq!(sink.publish(&event).await, [Delivery::Published]);
        let received = rig.received(&topic, 1).await;
        assert_eq!(received.len(), 1, "{received:?}");
        assert_eq!(received[0].key.as_deref(), Some("ada%0D%0Ab:%20%C3%BC"));
    });
}

#[test]
fn headers_of_the_event_do_not_replace_those_of_the_sink() {
    with_rig(async |mut rig| {
        let (sink, topic) = (rig.sink().await, rig.topic().await);
        let mut event = one(&topic);
        for name in ["Nats-Msg-Id", "ce-id", "ce-type", "content-type"] {
            event[0].headers.insert(name.to_owned(), "mine".to_owned());
        }
        assert_eq!(sink.publish(&event).await, [Delivery::Published]);
        let received = rig.received(&topic, 1).await;
        assert!(!received[0].headers.values().any(|value| value == "mine"));
        assert_eq!(received[0].headers["content-type"], "application/json");
    });
}

#[test]
fn a_topic_that_is_no_subject_is_refused_for_good() {
    with_rig(async |mut rig| {
        let sink = rig.sink().await;
        for topic in [
            "",
            "a b",
            "a..b",
            "orders.*",
            "orders.>",
            "$JS.API.INFO",
            "a\r\nb",
        ] {
            let answers = sink.publish(&one(topic)).await;
            assert!(is_rejected(&answers[0], true), "{topic:?}: {answers:?}");
        }
    });
}

#[test]
fn a_prefix_stands_before_the_topic() {
    with_rig(async |mut rig| {
        let topic = unique();
        let config = stream::Config {
            name: topic.clone(),
            subjects: vec![format!("shop.{topic}")],
            ..Default::default()
        };
        rig.direct.create_stream(config).await.expect("a stream");
        let sink = rig.sink().await.prefix("shop");
        assert_eq!(sink.publish(&one(&topic)).await, [Delivery::Published]);
    });
}

#[test]
fn a_lost_answer_is_no_success_and_its_repeat_is_stored_once() {
    with_rig(async |mut rig| {
        let (sink, topic) = (rig.sink().await, rig.topic().await);
        let event = one(&topic);
        rig.proxy.cut_next_reply(event[0].id.to_string().as_bytes());
        let answers = sink.publish(&event).await;
        assert!(!rig.proxy.is_armed(), "nothing was cut");
        assert!(
            matches!(answers[0], Delivery::Unavailable(_)),
            "{answers:?}"
        );
        assert_eq!(rig.received(&topic, 1).await.len(), 1, "it was stored");
        eventually(SOON, async || sink.publish(&event).await[0].is_published()).await;
        assert_eq!(rig.received(&topic, 1).await.len(), 1, "once");
    });
}

#[test]
fn a_silent_server_holds_a_batch_up_no_longer_than_one_timeout() {
    with_rig(async |mut rig| {
        let (sink, topic) = (rig.sink().await, rig.topic().await);
        rig.proxy.black_hole(true);
        let keys: Vec<_> = (0..50).map(|number| format!("key {number}")).collect();
        let keys: Vec<_> = keys.iter().map(|key| Some(key.as_str())).collect();
        let batch = events(&topic, &keys);
        let began = Instant::now();
        let answers = sink.publish(&batch).await;
        assert!(began.elapsed() < ACK_TIMEOUT * 2, "{:?}", began.elapsed());
        for answer in answers {
            assert!(matches!(answer, Delivery::Unavailable(_)), "{answer:?}");
        }
    });
}

#[test]
fn without_a_connection_nothing_is_kept_for_later() {
    run(async {
        let Some(mut rig) = own_rig().await else {
            return;
        };
        let (sink, topic) = (rig.sink().await, rig.topic().await);
        let mut server = rig.server.take().expect("a server of its own");
        server.stop();
        // The client must have seen it: until then an answer may still come.
        eventually(SOON, async || {
            let began = Instant::now();
            let answers = sink.publish(&one(&topic)).await;
            assert!(!answers[0].is_published());
            began.elapsed() < ACK_TIMEOUT / 2
        })
        .await;
        let unsent = events(&topic, &[Some("eve")]);
        for _ in 0..5000 {
            let answers = sink.publish(&unsent).await;
            assert!(matches!(answers[0], Delivery::Unavailable(_)));
        }
        server.restart();
        let last = one(&topic);
        eventually(SOON, async || sink.publish(&last).await[0].is_published()).await;
        let received = rig.received(&topic, 1).await;
        let id = unsent[0].id.to_string();
        assert!(received.iter().all(|got| got.id != id), "{received:?}");
    });
}
