//! The sink of MQTT 5 against the conformance suite and a real broker.

// A test that cannot go on says why and stops.
#![allow(clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use effectively::{
    Envelope,
    sink::{Delivery, Sink, mqtt::Mqtt},
    testing::sink::{self, Received, Rig},
};
use effectively_tests::{Proxy, cancel_after, eventually, poll_times};
use rumqttc::v5::{
    AsyncClient, Event, Incoming, MqttOptions,
    mqttbytes::{QoS, v5::Publish},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

mod qos1 {
    effectively::sink_conformance!(super::rig);
}

mod qos2 {
    effectively::sink_conformance!(super::rig2);
}

const VARIABLE: &str = "EFFECTIVELY_TEST_MQTT";
const LIMIT: usize = 100_000;
const BOUND: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

async fn rig() -> Option<Broker> {
    Some(Broker::at(server()?, QoS::AtLeastOnce))
}

async fn rig2() -> Option<Broker> {
    Some(Broker::at(server()?, QoS::ExactlyOnce))
}

/// The address of the shared server. Says so if there is none.
fn server() -> Option<SocketAddr> {
    let url = env::var(VARIABLE).unwrap_or_default();
    if url.is_empty() {
        let promised = env::var_os("EFFECTIVELY_TEST_SERVERS").is_some();
        assert!(
            !promised,
            "{VARIABLE} is not set although the servers were promised"
        );
        skipped(&format!("{VARIABLE} is not set"));
        return None;
    }
    let address = url.trim_start_matches("mqtt://").trim_end_matches('/');
    Some(address.parse().expect("mqtt://address:port"))
}

fn skipped(why: &str) {
    let this_thread = thread::current();
    let test = this_thread.name().unwrap_or("a test");
    let _ = writeln!(io::stderr().lock(), "SKIPPED {test}: {why}");
}

fn unique() -> String {
    format!("test/{}", sink::events("", &[None])[0].id)
}

fn options(address: SocketAddr) -> MqttOptions {
    MqttOptions::new(unique(), address.ip().to_string(), address.port())
}

struct Broker {
    server: SocketAddr,
    /// Stands before the broker, so that the sink's connections can be cut. Consumers go around it.
    proxy: Arc<Proxy>,
    qos: QoS,
    consumers: BTreeMap<String, Consumer>,
    private: Option<PrivateServer>,
}

impl Broker {
    fn at(server: SocketAddr, qos: QoS) -> Self {
        Self {
            server,
            proxy: Arc::new(Proxy::to(server)),
            qos,
            consumers: BTreeMap::new(),
            private: None,
        }
    }

    /// On a broker of its own, with these lines in its configuration.
    async fn alone(qos: QoS, lines: &[&str]) -> Option<Self> {
        let private = PrivateServer::start(lines).await?;
        let rig = Self::at(private.address, qos);
        Some(Self {
            private: Some(private),
            ..rig
        })
    }

    fn build(&self) -> Mqtt {
        let sink = Mqtt::new(options(self.proxy.address()))
            .max_bytes(LIMIT)
            .timeout(Duration::from_secs(5));
        match self.qos {
            QoS::ExactlyOnce => sink.qos2(),
            _ => sink,
        }
    }

    async fn subscribed(&mut self) -> String {
        let topic = unique();
        let consumer = Consumer::subscribe(self.server, &topic).await;
        self.consumers.insert(topic.clone(), consumer);
        topic
    }

    async fn read(&self, topic: &str, at_least: usize) -> Vec<Received> {
        let (consumer, end) = (&self.consumers[topic], Instant::now() + BOUND);
        loop {
            let all = consumer.received.lock().expect("unpoisoned").clone();
            // A broker that was killed may deliver some again.
            let distinct: BTreeSet<_> = all.iter().map(|got| &got.id).collect();
            if distinct.len() >= at_least || Instant::now() > end {
                return all;
            }
            sleep(PAUSE).await;
        }
    }
}

/// Has a session that outlives its connection, and keeps what it gets.
struct Consumer {
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl Consumer {
    async fn subscribe(server: SocketAddr, topic: &str) -> Self {
        let mut options = options(server);
        options
            .set_clean_start(false)
            .set_session_expiry_interval(Some(600))
            .set_max_packet_size(Some(1_000_000));
        let (client, mut events) = AsyncClient::new(options, 10);
        let subscribed = client.subscribe(topic, QoS::AtLeastOnce).await;
        subscribed.expect("room in the channel");
        let acknowledged = async {
            loop {
                let event = events.poll().await.expect("a connection");
                if let Event::Incoming(Incoming::SubAck(_)) = event {
                    return;
                }
            }
        };
        timeout(BOUND, acknowledged).await.expect("SUBACK");
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let all = received.clone();
        let task = tokio::spawn(async move {
            // Else the loop would end.
            let _client = client;
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Incoming::Publish(publish))) => {
                        all.lock().expect("unpoisoned").push(got(&publish));
                    }
                    Ok(_) => {}
                    // It connects again.
                    Err(_) => sleep(PAUSE).await,
                }
            }
        });
        Self { received, task }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn got(publish: &Publish) -> Received {
    let properties = publish.properties.clone().expect("properties");
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    let count = properties.user_properties.len();
    let headers: BTreeMap<_, _> = properties.user_properties.into_iter().collect();
    assert_eq!(headers.len(), count, "a name is there twice");
    Received {
        id: headers["id"].clone(),
        name: headers["type"].clone(),
        key: headers.get("partitionkey").cloned(),
        data: publish.payload.to_vec(),
        headers,
    }
}

impl Rig for Broker {
    type Sink = Mqtt;

    async fn sink(&mut self) -> Mqtt {
        self.build()
    }

    async fn topic(&mut self) -> String {
        self.subscribed().await
    }

    async fn received(&mut self, topic: &str, at_least: usize) -> Vec<Received> {
        self.read(topic, at_least).await
    }

    fn oversized(&mut self) -> Option<usize> {
        Some(LIMIT)
    }

    fn cut_soon(&mut self) -> bool {
        let proxy = self.proxy.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(15));
            proxy.sever();
        });
        true
    }

    async fn restart(&mut self) -> bool {
        match &mut self.private {
            Some(server) => {
                server.restart().await;
                true
            }
            None => false,
        }
    }
}

/// A broker with a directory of its own, killed when dropped.
struct PrivateServer {
    address: SocketAddr,
    directory: TempDir,
    process: Child,
}

impl PrivateServer {
    /// `None`, and says so, if the program is not installed.
    async fn start(lines: &[&str]) -> Option<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().display().to_string();
        // Started as root, it would become a user that cannot write there.
        let user = env::var("USER").unwrap_or_else(|_| "root".to_owned());
        let listener = format!("listener {} 127.0.0.1", address.port());
        let configuration = [
            &format!("user {user}"),
            &listener,
            "allow_anonymous true",
            "max_queued_messages 0",
            "persistence true",
            &format!("persistence_location {path}/"),
        ];
        let configuration = [&configuration[..], lines].concat().join("\n") + "\n";
        let configuration = configuration.replace("DIRECTORY", &path);
        fs::write(directory.path().join("conf"), configuration).expect("written");
        fs::write(directory.path().join("acl"), "topic readwrite test/#\n").expect("written");
        let Ok(process) = spawn(&directory) else {
            skipped("mosquitto is not installed");
            return None;
        };
        is_up(address).await;
        Some(Self {
            address,
            directory,
            process,
        })
    }

    /// Mosquitto writes to its file when it likes to, and when it is told to: what it lost by then would be no fault of the sink.
    async fn restart(&mut self) {
        let file = self.directory.path().join("mosquitto.db");
        let _ = fs::remove_file(&file);
        let tell = Command::new("kill")
            .args(["-USR1", &self.process.id().to_string()])
            .status();
        assert!(tell.expect("kill").success());
        let end = Instant::now() + BOUND;
        while !file.exists() {
            assert!(Instant::now() < end, "it has not written its file");
            sleep(PAUSE).await;
        }
        self.process.kill().expect("SIGKILL");
        self.process.wait().expect("its end");
        self.process = spawn(&self.directory).expect("mosquitto, again");
        is_up(self.address).await;
    }
}

async fn is_up(address: SocketAddr) {
    let end = Instant::now() + BOUND;
    while let Err(error) = TcpStream::connect(address).await {
        assert!(Instant::now() < end, "{error}");
        sleep(PAUSE).await;
    }
}

fn spawn(directory: &TempDir) -> io::Result<Child> {
    Command::new("mosquitto")
        .arg("-c")
        .arg(directory.path().join("conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn event(topic: &str) -> Envelope {
    sink::events(topic, &[None]).remove(0)
}

fn is_unavailable(answers: &[Delivery]) -> bool {
    let mut answers = answers.iter();
    answers.all(|answer| matches!(answer, Delivery::Unavailable(_)))
}

fn is_refused_for_good(answer: &Delivery) -> bool {
    matches!(answer, Delivery::Rejected(rejected) if rejected.is_fatal())
}

fn ids(batch: &[Envelope]) -> Vec<String> {
    batch.iter().map(|event| event.id.to_string()).collect()
}

fn received_ids(received: &[Received]) -> Vec<String> {
    received.iter().map(|got| got.id.clone()).collect()
}

const BOTH: [QoS; 2] = [QoS::AtLeastOnce, QoS::ExactlyOnce];

#[test]
fn a_killed_broker_has_what_was_published() {
    for qos in BOTH {
        sink::run(async {
            if let Some(rig) = Broker::alone(qos, &[]).await {
                sink::a_restart_in_the_middle_loses_nothing(rig).await;
            }
        });
    }
}

#[test]
fn what_was_in_flight_when_the_connection_was_lost_confirms_nothing_later() {
    for qos in BOTH {
        sink::run(async {
            let Some(server) = server() else { return };
            let mut rig = Broker::at(server, qos);
            let (sink, topic) = (rig.build(), rig.subscribed().await);
            let first: Vec<_> = (0..5).map(|_| event(&topic)).collect();
            let marker = first[4].id.to_string();
            // Lost on the way there, and on the way back.
            rig.proxy.lose_next_request(marker.as_bytes());
            let began = Instant::now();
            let answers = sink.publish(&first).await;
            assert!(is_unavailable(&answers[4..]), "{answers:?}");
            assert!(!rig.proxy.is_armed());
            let second: Vec<_> = (0..5).map(|_| event(&topic)).collect();
            rig.proxy
                .cut_next_reply(second[0].id.to_string().as_bytes());
            let answers = sink.publish(&second).await;
            assert!(is_unavailable(&answers[4..]), "{answers:?}");
            assert!(!rig.proxy.is_armed());
            // Told by the lost connection, not by the clock.
            assert!(began.elapsed() < Duration::from_secs(4));
            let third = [event(&topic), event(&topic)];
            assert_eq!(
                sink.publish(&third).await,
                [Delivery::Published, Delivery::Published]
            );
            let end = third[1].id.to_string();
            let all = async || {
                let got = received_ids(&rig.read(&topic, 1).await);
                got.contains(&end).then_some(got)
            };
            let got = eventually(BOUND, all).await;
            // Nothing of the lost connections was sent once more behind the sink's back.
            assert!(
                !got.contains(&marker),
                "never confirmed, and not sent again"
            );
            let once = got
                .iter()
                .all(|id| got.iter().filter(|other| *other == id).count() == 1);
            assert!(once, "{got:?}");
        });
    }
}

#[test]
fn each_message_has_an_answer_of_its_own() {
    sink::run(async {
        let Some(mut rig) = rig().await else { return };
        let (sink, topic) = (rig.build().require_subscribers(), rig.subscribed().await);
        let nobody = unique();
        let batch: Vec<_> = (0..1000)
            .map(|number| event(if number % 3 == 1 { &nobody } else { &topic }))
            .collect();
        let answers = sink.publish(&batch).await;
        for (event, answer) in batch.iter().zip(&answers) {
            assert_eq!(answer.is_published(), event.topic == topic, "{answer:?}");
        }
        assert_eq!(rig.read(&topic, 667).await.len(), 667);
    });
}

/// Mosquitto 2.0.11 hangs up after it has refused a message with properties: the others may need a second try.
#[test]
fn a_message_that_is_not_allowed_is_rejected_and_the_others_pass_in_the_end() {
    for qos in BOTH {
        sink::run(async {
            let Some(mut rig) = Broker::alone(qos, &["acl_file DIRECTORY/acl"]).await else {
                return;
            };
            let (sink, topic) = (rig.build(), rig.subscribed().await);
            // Only `test/#` may be written to.
            let mut batch = vec![event(&topic), event("elsewhere"), event(&topic)];
            let answers = sink.publish(&batch).await;
            let expected = Delivery::rejected("the broker answered NotAuthorized");
            assert_eq!(answers[1], expected);
            batch.remove(1);
            let answers = sink.publish(&batch).await;
            assert!(answers.iter().all(Delivery::is_published), "{answers:?}");
            let got = received_ids(&rig.read(&topic, 2).await);
            assert!(ids(&batch).iter().all(|id| got.contains(id)));
        });
    }
}

#[test]
fn a_message_without_subscriber_may_be_rejected() {
    sink::run(async {
        let Some(mut rig) = rig().await else { return };
        let (topic, nobody) = (rig.subscribed().await, unique());
        let batch = [event(&topic), event(&nobody)];
        let answers = rig.build().publish(&batch).await;
        assert_eq!(answers, [Delivery::Published, Delivery::Published]);
        let answers = rig.build().require_subscribers().publish(&batch).await;
        let rejected = Delivery::rejected("the topic has no subscriber");
        assert_eq!(answers, [Delivery::Published, rejected]);
    });
}

#[test]
fn texts_that_end_the_connection_are_refused_before() {
    sink::run(async {
        let Some(mut rig) = rig().await else { return };
        let (sink, topic) = (rig.build(), rig.subscribed().await);
        let with = |value: &str| {
            let mut event = event(&topic);
            event.headers.insert("own".to_owned(), value.to_owned());
            event
        };
        let mut key = event(&topic);
        key.partition_key = Some("tab\t".to_owned());
        let mut batch = vec![
            with("\0"),
            with("line\n"),
            with("\u{7f}"),
            with("\u{85}"),
            with("\u{ffff}"),
            with("\u{1fffe}"),
            with("\u{fdd0}"),
            with(&"x".repeat(65_536)),
            key,
            event(""),
            event("a/+/b"),
            event("a/#"),
            event("a\0b"),
        ];
        let bad = batch.len();
        batch.push(with(&"x".repeat(65_535)));
        batch.push(with("ü \u{1f600} \u{fdcf} \u{a0}"));
        let answers = sink.publish(&batch).await;
        assert!(
            answers[..bad].iter().all(is_refused_for_good),
            "{answers:?}"
        );
        assert_eq!(answers[bad..], [Delivery::Published, Delivery::Published]);
        let got = rig.read(&topic, 2).await;
        for (sent, got) in batch[bad..].iter().zip(&got) {
            assert_eq!(sent.headers["own"], got.headers["own"]);
        }
    });
}

#[test]
fn headers_with_our_names_hide_nothing() {
    sink::run(async {
        let Some(mut rig) = rig().await else { return };
        let (sink, topic) = (rig.build(), rig.subscribed().await);
        let mut event = event(&topic);
        for name in ["id", "type", "idea"] {
            event.headers.insert(name.to_owned(), "mine".to_owned());
        }
        assert_eq!(
            sink.publish(std::slice::from_ref(&event)).await,
            [Delivery::Published]
        );
        let got = &rig.read(&topic, 1).await[0];
        assert_eq!(got.id, event.id.to_string());
        for name in ["header_id", "header_type", "idea"] {
            assert_eq!(got.headers[name], "mine");
        }
    });
}

/// The largest packet is told by the broker. One byte more would end the connection.
#[test]
fn the_largest_packet_of_the_broker_is_kept_to() {
    sink::run(async {
        let Some(mut rig) = Broker::alone(QoS::AtLeastOnce, &["max_packet_size 20000"]).await
        else {
            return;
        };
        let (sink, topic) = (rig.build(), rig.subscribed().await);
        let mut passed = 0;
        for length in 19_200..20_000 {
            let mut event = event(&topic);
            event.data = format!("\"{}\"", "x".repeat(length)).into_bytes();
            match sink.publish(&[event]).await.remove(0) {
                Delivery::Published => passed += 1,
                answer if is_refused_for_good(&answer) => break,
                answer => panic!("{answer:?} at {length}"),
            }
        }
        assert!((1..800).contains(&passed), "{passed}");
        assert_eq!(sink.publish(&[event(&topic)]).await, [Delivery::Published]);
        assert_eq!(rig.read(&topic, passed + 1).await.len(), passed + 1);
    });
}

/// `message_size_limit` is told to nobody.
#[test]
fn a_limit_of_the_broker_can_be_told_to_the_sink() {
    sink::run(async {
        let lines = ["message_size_limit 1000"];
        let Some(mut rig) = Broker::alone(QoS::AtLeastOnce, &lines).await else {
            return;
        };
        let topic = rig.subscribed().await;
        let mut batch = [event(&topic), event(&topic), event(&topic)];
        batch[0].data = vec![b'1'; 1000];
        batch[1].data = vec![b'1'; 1001];
        let sink = rig.build();
        let answers = sink.publish(&batch).await;
        assert!(!answers[1].is_published(), "{answers:?}");
        let sink = sink.max_bytes(1000);
        let answers = sink.publish(&batch).await;
        assert!(is_refused_for_good(&answers[1]));
        assert!(
            answers[0].is_published() && answers[2].is_published(),
            "{answers:?}"
        );
    });
}

#[test]
fn a_silent_connection_is_given_up() {
    sink::run(async {
        let Some(mut rig) = rig().await else { return };
        let (sink, topic) = (
            rig.build().timeout(Duration::from_millis(300)),
            rig.subscribed().await,
        );
        let batch = [event(&topic)];
        rig.proxy.stall_at(b"conformance.case.v1");
        assert!(is_unavailable(&sink.publish(&batch).await));
        assert!(!rig.proxy.is_armed());
        assert_eq!(
            sink.timeout(BOUND).publish(&batch).await,
            [Delivery::Published]
        );
    });
}

#[test]
fn a_broker_that_refuses_or_is_gone_is_unavailable() {
    sink::run(async {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let answers = Mqtt::new(options(address))
            .publish(&[event("test/x")])
            .await;
        assert_eq!(
            answers,
            [Delivery::unavailable("the broker cannot be reached")]
        );
        let lines = ["allow_anonymous false"];
        let Some(rig) = Broker::alone(QoS::AtLeastOnce, &lines).await else {
            return;
        };
        let mut options = options(rig.server);
        options.set_credentials("user", "secret");
        let sink = Mqtt::new(options);
        assert!(!format!("{sink:?}").contains("secret"));
        let answers = sink.publish(&[event("test/x")]).await;
        assert_eq!(
            answers,
            [Delivery::unavailable("the broker answered NotAuthorized")]
        );
    });
}

#[test]
fn publishers_at_the_same_time_get_their_own_answers() {
    for qos in BOTH {
        sink::run(async {
            let Some(server) = server() else { return };
            let mut rig = Broker::at(server, qos);
            let (sink, topic) = (
                Arc::new(rig.build().require_subscribers()),
                rig.subscribed().await,
            );
            let mut tasks = JoinSet::new();
            for _ in 0..20 {
                let (sink, topic) = (sink.clone(), topic.clone());
                tasks.spawn(async move {
                    for _ in 0..5 {
                        let batch: Vec<_> = (0..20)
                            .map(|number| {
                                event(if number % 2 == 0 {
                                    &topic
                                } else {
                                    "test/nobody"
                                })
                            })
                            .collect();
                        for (event, answer) in batch.iter().zip(sink.publish(&batch).await) {
                            // Mosquitto names a missing subscriber with QoS 1 only.
                            let published = event.topic == topic || qos == QoS::ExactlyOnce;
                            assert_eq!(answer.is_published(), published, "{answer:?}");
                        }
                    }
                });
            }
            while let Some(task) = tasks.join_next().await {
                task.expect("no panic");
            }
            assert_eq!(rig.read(&topic, 1000).await.len(), 1000);
        });
    }
}

/// Publishes as often as the broker is unavailable: a CONNECT that was dropped may reach it after the next one, and ends that.
async fn published(sink: &Mqtt, batch: &[Envelope]) {
    let attempt = async || match sink.publish(batch).await.remove(0) {
        Delivery::Published => Some(()),
        Delivery::Unavailable(_) => None,
        answer => panic!("{answer:?}"),
    };
    eventually(BOUND, attempt).await;
}

#[test]
fn a_dropped_batch_spoils_no_later_one() {
    for qos in BOTH {
        sink::run(async {
            let Some(server) = server() else { return };
            let mut rig = Broker::at(server, qos);
            let (sink, topic) = (rig.build(), rig.subscribed().await);
            let mut sent = Vec::new();
            for polls in 1.. {
                let (lost, kept) = ([event(&topic), event(&topic)], [event(&topic)]);
                let ended = poll_times(polls, sink.publish(&lost)).await.is_some();
                published(&sink, &kept).await;
                sent.extend(ids(&kept));
                if ended {
                    break;
                }
            }
            for millis in 0..10 {
                let (lost, kept) = ([event(&topic)], [event(&topic)]);
                cancel_after(Duration::from_millis(millis), sink.publish(&lost)).await;
                published(&sink, &kept).await;
                sent.extend(ids(&kept));
            }
            let all = async || {
                let got = received_ids(&rig.read(&topic, sent.len()).await);
                sent.iter().all(|id| got.contains(id))
            };
            eventually(BOUND, all).await;
        });
    }
}

#[test]
fn a_dropped_sink_leaves_no_connection() {
    sink::run(async {
        let Some(mut rig) = rig().await else { return };
        let (sink, topic) = (rig.build(), rig.subscribed().await);
        assert_eq!(sink.publish(&[event(&topic)]).await, [Delivery::Published]);
        assert_eq!(rig.proxy.connections(), 1);
        drop(sink);
        eventually(BOUND, async || rig.proxy.connections() == 0).await;
    });
}

/// Takes three at a time, and acknowledges the newest first: rumqttc then meets an id again that is not free yet. Events of the
/// topic
/// `nobody` have no subscriber.
async fn broker_without_order(listener: tokio::net::TcpListener) {
    let (mut socket, _) = listener.accept().await.expect("a client");
    let mut packet = read_packet(&mut socket).await.expect("CONNECT");
    assert_eq!(packet.0 >> 4, 1);
    // CONNACK with Receive Maximum 3.
    let connack = [0x20, 6, 0, 0, 3, 0x21, 0, 3];
    socket.write_all(&connack).await.expect("sent");
    let mut open: Vec<(u16, bool)> = Vec::new();
    loop {
        let quiet = Duration::from_millis(if open.is_empty() { 60_000 } else { 10 });
        if let Ok(read) = timeout(quiet, read_packet(&mut socket)).await {
            let Some(read) = read else { return };
            packet = read;
            if packet.0 >> 4 == 3 {
                let length = usize::from(u16::from_be_bytes([packet.1[0], packet.1[1]]));
                let (topic, rest) = packet.1[2..].split_at(length);
                let id = u16::from_be_bytes([rest[0], rest[1]]);
                assert!(
                    open.iter().all(|(taken, _)| *taken != id),
                    "{id} is not free"
                );
                open.push((id, topic == b"nobody"));
                assert!(open.len() <= 3);
            }
        } else if let Some((id, nobody)) = open.pop() {
            let [high, low] = id.to_be_bytes();
            let puback = [0x40, 3, high, low, if nobody { 0x10 } else { 0 }];
            socket.write_all(&puback).await.expect("sent");
        }
    }
}

/// Acknowledges one message and hangs up.
async fn broker_in_a_hurry(listener: tokio::net::TcpListener) {
    loop {
        let (mut socket, _) = listener.accept().await.expect("a client");
        read_packet(&mut socket).await.expect("CONNECT");
        let connack = [0x20, 3, 0, 0, 0];
        socket.write_all(&connack).await.expect("sent");
        while let Some((first, body)) = read_packet(&mut socket).await {
            if first >> 4 == 3 {
                let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let puback = [0x40, 3, body[2 + length], body[3 + length], 0x87];
                socket.write_all(&puback).await.expect("sent");
                break;
            }
        }
    }
}

async fn read_packet(socket: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let first = socket.read_u8().await.ok()?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = socket.read_u8().await.ok()?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.ok()?;
    Some((first, body))
}

#[test]
fn a_broker_may_acknowledge_in_any_order() {
    sink::run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let broker = tokio::spawn(broker_without_order(listener));
        let sink = Mqtt::new(options(address))
            .require_subscribers()
            .timeout(BOUND);
        let batch: Vec<_> = (0..60)
            .map(|number| event(if number % 7 < 3 { "nobody" } else { "test/x" }))
            .collect();
        let answers = sink.publish(&batch).await;
        for (event, answer) in batch.iter().zip(&answers) {
            let expected = match event.topic.as_str() {
                "nobody" => Delivery::rejected("the topic has no subscriber"),
                _ => Delivery::Published,
            };
            assert_eq!(*answer, expected);
        }
        drop(sink);
        broker.await.expect("no panic");
    });
}

#[test]
fn what_was_acknowledged_before_the_end_counts() {
    sink::run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let broker = tokio::spawn(broker_in_a_hurry(listener));
        let sink = Mqtt::new(options(address));
        for _ in 0..50 {
            let answers = sink.publish(&[event("test/x"), event("test/x")]).await;
            let refused = Delivery::rejected("the broker answered NotAuthorized");
            assert_eq!(answers[0], refused);
            assert!(is_unavailable(&answers[1..]), "{answers:?}");
        }
        broker.abort();
    });
}
