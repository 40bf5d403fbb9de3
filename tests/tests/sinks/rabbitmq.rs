//! The sink of RabbitMQ against the conformance suite, on a real server, and the traps of its own.

// A test that cannot go on says why and stops.
#![allow(clippy::expect_used)]

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use effectively::Envelope;
use effectively::sink::{Delivery, Sink, rabbitmq::RabbitMq};
use effectively::testing::sink::{Received, Rig, events, run};
use effectively_tests::{Proxy, eventually, poll_times};
use lapin::options::{
    BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use tempfile::TempDir;

effectively::sink_conformance!(rig);

/// On a server that a test may kill, and that takes only small messages.
mod own_server {
    effectively::sink_conformance!(@cases super::own_rig:
        a_restart_in_the_middle_loses_nothing,
        an_oversized_event_is_refused_for_good_and_others_go_on,
        a_refused_event_stops_no_other_key,
    );
}

const VARIABLE: &str = "EFFECTIVELY_TEST_RABBITMQ";
const SERVERS_ARE_STARTED: &str = "EFFECTIVELY_TEST_SERVERS";
const TIMEOUT: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(20);
/// How long a server may take to start, with several at once on a small machine.
const START: Duration = Duration::from_secs(60);
/// The `max_message_size` of an own server.
const SMALL: usize = 100_000;

struct RabbitRig {
    proxy: Arc<Proxy>,
    /// `user:password`.
    login: String,
    direct: Connection,
    server: Option<PrivateServer>,
}

async fn rig() -> Option<RabbitRig> {
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
    let url = url.trim_start_matches("amqp://");
    let (login, address) = url.split_once('@').expect("user:password@host:port");
    Some(RabbitRig::on(address.parse().expect("an address with a port"), login).await)
}

async fn own_rig() -> Option<RabbitRig> {
    rig_with(&format!("max_message_size = {SMALL}")).await
}

async fn rig_with(config: &str) -> Option<RabbitRig> {
    let server = PrivateServer::start(config)?;
    let mut rig = RabbitRig::on(server.address, "guest:guest").await;
    rig.server = Some(server);
    Some(rig)
}

impl RabbitRig {
    async fn on(address: SocketAddr, login: &str) -> Self {
        Self {
            proxy: Arc::new(Proxy::to(address)),
            login: login.to_owned(),
            direct: connect(address, login).await,
            server: None,
        }
    }

    async fn channel(&mut self) -> Channel {
        if !self.direct.status().connected()
            && let Some(server) = &self.server
        {
            self.direct = connect(server.address, &self.login).await;
        }
        self.direct.create_channel().await.expect("a channel")
    }

    async fn queue(&mut self, arguments: &[(&str, AMQPValue)]) -> String {
        let name = unique();
        let options = QueueDeclareOptions {
            durable: true,
            ..Default::default()
        };
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let channel = self.channel().await;
        let declared = channel.queue_declare(name.as_str().into(), options, table);
        declared.await.expect("a queue");
        name
    }

    async fn exchange(&mut self, name: &str) {
        let options = ExchangeDeclareOptions::default();
        let (name, kind) = (name.into(), ExchangeKind::Topic);
        let channel = self.channel().await;
        let declared = channel.exchange_declare(name, kind, options, FieldTable::default());
        declared.await.expect("an exchange");
    }

    /// All that is in the queue; it stays there.
    async fn messages(&mut self, queue: &str, at_least: usize) -> Vec<(BasicProperties, Vec<u8>)> {
        let channel = self.channel().await;
        let patience = Instant::now() + SOON;
        let mut messages = Vec::new();
        loop {
            let got = channel.basic_get(queue.into(), BasicGetOptions::default());
            match got.await.expect("an answer") {
                Some(got) => {
                    messages.push((got.delivery.properties.clone(), got.delivery.data.clone()));
                }
                None if messages.len() >= at_least => break,
                None => {
                    assert!(
                        Instant::now() < patience,
                        "only {} are there",
                        messages.len()
                    );
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
        channel.close(200, "OK".into()).await.expect("closed");
        messages
    }
}

async fn connect(address: SocketAddr, login: &str) -> Connection {
    let uri = format!("amqp://{login}@{address}");
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await;
    connection.expect("a server")
}

impl Rig for RabbitRig {
    type Sink = RabbitMq;

    async fn sink(&mut self) -> RabbitMq {
        let uri = format!("amqp://{}@{}", self.login, self.proxy.address());
        RabbitMq::new(uri, ConnectionProperties::default()).timeout(TIMEOUT)
    }

    async fn topic(&mut self) -> String {
        // A quorum queue of 3.10 that is killed within seconds of its birth finds no leader again, on a single node.
        if self.server.is_some() {
            let queue = self.queue(&[]).await;
            self.server
                .as_ref()
                .expect("it is there")
                .has_on_disk(&queue);
            return queue;
        }
        let quorum = AMQPValue::LongString("quorum".into());
        self.queue(&[("x-queue-type", quorum)]).await
    }

    async fn received(&mut self, topic: &str, at_least: usize) -> Vec<Received> {
        let messages = self.messages(topic, at_least).await;
        messages.into_iter().map(received).collect()
    }

    fn missing_topic(&mut self) -> Option<String> {
        Some(unique())
    }

    fn oversized(&mut self) -> Option<usize> {
        self.server.as_ref().map(|_| SMALL)
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
        self.direct = connect(server.address, &self.login).await;
        true
    }
}

fn received((properties, data): (BasicProperties, Vec<u8>)) -> Received {
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => text.to_string(),
        other => format!("{other:?}"),
    };
    let headers = properties.headers().as_ref().expect("headers");
    let headers: BTreeMap<_, _> = headers
        .inner()
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    Received {
        id: properties.message_id().as_ref().expect("an id").to_string(),
        name: properties.kind().as_ref().expect("a type").to_string(),
        key: headers.get("cloudEvents:partitionkey").cloned(),
        data,
        headers,
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
    /// Of Erlang's distribution and of its port mapper.
    ports: [u16; 2],
    directory: TempDir,
    child: Child,
}

const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// Each server has a port mapper of its own, so that all can have one name.
const NODE: &str = "own@localhost";

impl PrivateServer {
    /// `None`, and says so, if the program is not installed.
    fn start(config: &str) -> Option<Self> {
        if !fs::exists(PROGRAM).is_ok_and(|there| there) {
            skipped("rabbitmq-server is not installed");
            return None;
        }
        // A free port may be taken by others until the server gets to it.
        (0..3).find_map(|_| Self::on(free_ports(), config))
    }

    fn on([port, ports @ ..]: [u16; 3], config: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let config = format!("listeners.tcp.1 = {address}\n{config}\n");
        fs::write(directory.path().join("rabbitmq.conf"), config).expect("its configuration");
        fs::write(directory.path().join("plugins"), "").expect("its plugins");
        let child = Self::spawn(address, ports, &directory);
        let mut server = Self {
            address,
            ports,
            directory,
            child,
        };
        server.is_ready().then_some(server)
    }

    fn spawn(address: SocketAddr, [distribution, mapper]: [u16; 2], directory: &TempDir) -> Child {
        let place = directory.path();
        Command::new(PROGRAM)
            .env("HOME", place)
            .env("RABBITMQ_NODENAME", NODE)
            .env("RABBITMQ_MNESIA_BASE", place)
            .env("RABBITMQ_LOG_BASE", place)
            .env("RABBITMQ_CONFIG_FILE", place.join("rabbitmq"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", place.join("plugins"))
            .env("RABBITMQ_DIST_PORT", distribution.to_string())
            .env("ERL_EPMD_PORT", mapper.to_string())
            .env("ERL_EPMD_ADDRESS", address.ip().to_string())
            // It can be ended right after its server, of whose end it may not have heard.
            .env("ERL_EPMD_RELAXED_COMMAND_CHECK", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("rabbitmq-server")
    }

    /// Its own log says it: on the port somebody else may answer. `false`: it has ended.
    fn is_ready(&mut self) -> bool {
        let log = self.directory.path().join(format!("{NODE}.log"));
        let patience = Instant::now() + START;
        while Instant::now() < patience {
            if fs::read_to_string(&log).is_ok_and(|log| log.contains("Server startup complete")) {
                return true;
            }
            if self.child.try_wait().is_ok_and(|end| end.is_some()) {
                return false;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("rabbitmq-server is not ready after {START:?}");
    }

    /// A durable queue is in memory only for a moment after it was declared, and lost if the server is killed then.
    fn has_on_disk(&self, queue: &str) {
        let place = self.directory.path().join(NODE);
        let holds_it = |entry: io::Result<fs::DirEntry>| {
            let bytes = entry.and_then(|entry| fs::read(entry.path()));
            bytes.is_ok_and(|bytes| {
                bytes
                    .windows(queue.len())
                    .any(|part| part == queue.as_bytes())
            })
        };
        let patience = Instant::now() + SOON;
        while !fs::read_dir(&place).expect("its directory").any(holds_it) {
            assert!(Instant::now() < patience, "the queue is not on disk");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The program is a script with the server below it: the whole group ends.
    fn stop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill")
            .args(["-9", "--", &group])
            .stderr(Stdio::null())
            .status();
        let _ = self.child.wait();
    }

    fn restart(&mut self) {
        self.stop();
        let log = self.directory.path().join(format!("{NODE}.log"));
        fs::rename(&log, log.with_extension("before")).expect("its log");
        self.child = Self::spawn(self.address, self.ports, &self.directory);
        assert!(self.is_ready(), "rabbitmq-server does not start again");
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        self.stop();
        // Erlang's port mapper has made itself independent.
        let _ = Command::new("epmd")
            .args(["-port", &self.ports[1].to_string(), "-kill"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

fn free_ports() -> [u16; 3] {
    let listen = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let listeners = [0, 1, 2].map(listen);
    listeners.map(|listener| listener.local_addr().expect("its address").port())
}

/// Runs one test with a rig.
fn with_rig(test: impl AsyncFnOnce(RabbitRig)) {
    run(async {
        if let Some(rig) = rig().await {
            test(rig).await;
        }
    });
}

fn is_rejected(delivery: &Delivery, for_good: bool) -> bool {
    matches!(delivery, Delivery::Rejected(rejected) if rejected.is_fatal() == for_good)
}

fn is_unavailable(delivery: &Delivery) -> bool {
    matches!(delivery, Delivery::Unavailable(_))
}

/// A sink whose answers do not depend on how fast a small machine is.
async fn patient(rig: &mut RabbitRig) -> RabbitMq {
    rig.sink().await.timeout(SOON)
}

/// Events that go to a queue and to nowhere, in turn.
fn every_other_unroutable(topic: &str, nowhere: &str, many: usize) -> Vec<Envelope> {
    let mut batch = events(topic, &vec![None; many]);
    for event in batch.iter_mut().skip(1).step_by(2) {
        nowhere.clone_into(&mut event.topic);
    }
    batch
}

fn assert_every_other_published(answers: &[Delivery]) {
    for (place, answer) in answers.iter().enumerate() {
        if place % 2 == 0 {
            assert_eq!(*answer, Delivery::Published, "{place}: {answers:?}");
        } else {
            assert!(is_rejected(answer, false), "{place}: {answers:?}");
        }
    }
}

#[test]
fn unroutable_events_are_told_from_the_others_of_their_batch() {
    with_rig(async |mut rig| {
        let (sink, topic, nowhere) = (patient(&mut rig).await, rig.topic().await, unique());
        for _ in 0..20 {
            let batch = every_other_unroutable(&topic, &nowhere, 40);
            assert_every_other_published(&sink.publish(&batch).await);
        }
        assert_eq!(rig.received(&topic, 400).await.len(), 400);
    });
}

#[test]
fn batches_at_the_same_time_do_not_get_each_others_answers() {
    with_rig(async |mut rig| {
        let (sink, topic) = (Arc::new(patient(&mut rig).await), rig.topic().await);
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let (sink, topic, nowhere) = (sink.clone(), topic.clone(), unique());
            tasks.push(tokio::spawn(async move {
                for _ in 0..10 {
                    let batch = every_other_unroutable(&topic, &nowhere, 10);
                    assert_every_other_published(&sink.publish(&batch).await);
                }
            }));
        }
        for task in tasks {
            task.await.expect("a task without a panic");
        }
        assert_eq!(rig.received(&topic, 400).await.len(), 400);
    });
}

#[test]
fn a_missing_exchange_is_tried_again_until_there_is_one() {
    with_rig(async |mut rig| {
        let (exchange, queue) = (unique(), rig.topic().await);
        let sink = rig.sink().await.exchange(&exchange);
        let batch = events("orders.eu", &[Some("ada"), Some("bob")]);
        for answer in sink.publish(&batch).await {
            assert!(is_rejected(&answer, false), "{answer:?}");
        }
        rig.exchange(&exchange).await;
        for answer in sink.publish(&batch).await {
            assert!(is_rejected(&answer, false), "no queue is bound: {answer:?}");
        }
        let channel = rig.channel().await;
        let (options, table) = (QueueBindOptions::default(), FieldTable::default());
        let (queue_name, exchange_name) = (queue.as_str().into(), exchange.as_str().into());
        let bound =
            channel.queue_bind(queue_name, exchange_name, "orders.*".into(), options, table);
        bound.await.expect("a binding");
        let answers = sink.publish(&batch).await;
        assert_eq!(answers, [Delivery::Published, Delivery::Published]);
        assert_eq!(rig.received(&queue, 2).await.len(), 2);
    });
}

#[test]
fn a_full_queue_that_rejects_is_tried_again_and_others_go_on() {
    with_rig(async |mut rig| {
        let (sink, topic) = (rig.sink().await, rig.topic().await);
        let full = rig
            .queue(&[
                ("x-max-length", AMQPValue::LongInt(1)),
                ("x-overflow", AMQPValue::LongString("reject-publish".into())),
            ])
            .await;
        assert_eq!(sink.publish(&one(&full)).await, [Delivery::Published]);
        let mut batch = events(&topic, &[Some("ada"), Some("bob"), Some("eve")]);
        batch[1].topic = full;
        let answers = sink.publish(&batch).await;
        assert_eq!(answers[0], Delivery::Published);
        assert!(is_rejected(&answers[1], false), "{answers:?}");
        assert_eq!(answers[2], Delivery::Published);
    });
}

#[test]
fn properties_are_those_of_the_event() {
    with_rig(async |mut rig| {
        let (sink, topic) = (rig.sink().await, rig.topic().await);
        let mut event = one(&topic);
        let name = "cloudEvents:id".to_owned();
        event[0].headers.insert(name, "mine".to_owned());
        assert_eq!(sink.publish(&event).await, [Delivery::Published]);
        let (properties, data) = rig.messages(&topic, 1).await.remove(0);
        assert_eq!(*properties.delivery_mode(), Some(2), "persistent");
        assert_eq!(*properties.timestamp(), Some(event[0].staged_at.as_secs()));
        let content_type = properties.content_type().as_ref();
        assert_eq!(content_type.expect("a type").as_str(), "application/json");
        let received = received((properties, data));
        assert_eq!(received.headers["cloudEvents:id"], received.id);
    });
}

#[test]
fn a_lost_confirm_is_no_success_and_the_repeat_has_the_same_id() {
    with_rig(async |mut rig| {
        let (sink, topic) = (rig.sink().await, rig.topic().await);
        assert_eq!(sink.publish(&one(&topic)).await, [Delivery::Published]);
        let event = one(&topic);
        rig.proxy.cut_next_reply(event[0].id.to_string().as_bytes());
        let answers = sink.publish(&event).await;
        assert!(!rig.proxy.is_armed(), "nothing was cut");
        assert!(is_unavailable(&answers[0]), "{answers:?}");
        eventually(SOON, async || sink.publish(&event).await[0].is_published()).await;
        let received = rig.received(&topic, 3).await;
        let id = event[0].id.to_string();
        assert_eq!(received.iter().filter(|got| got.id == id).count(), 2);
    });
}

#[test]
fn a_silent_server_holds_a_batch_up_no_longer_than_one_timeout() {
    with_rig(async |mut rig| {
        let (sink, topic) = (rig.sink().await, rig.topic().await);
        assert_eq!(sink.publish(&one(&topic)).await, [Delivery::Published]);
        rig.proxy.black_hole(true);
        // The second time it also has to connect.
        for _ in 0..2 {
            let began = Instant::now();
            let answers = sink.publish(&events(&topic, &[None; 50])).await;
            assert!(began.elapsed() < TIMEOUT * 2, "{:?}", began.elapsed());
            assert!(answers.iter().all(is_unavailable), "{answers:?}");
        }
        rig.proxy.black_hole(false);
        let event = one(&topic);
        eventually(SOON, async || sink.publish(&event).await[0].is_published()).await;
    });
}

#[test]
fn nobody_there_is_said_at_once() {
    run(async {
        let [port, ..] = free_ports();
        let sink = RabbitMq::connecting_by(move || async move {
            Connection::connect(
                &format!("amqp://127.0.0.1:{port}"),
                ConnectionProperties::default(),
            )
            .await
        });
        let began = Instant::now();
        let answers = sink.publish(&one("orders")).await;
        assert!(is_unavailable(&answers[0]), "{answers:?}");
        assert!(began.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn what_amqp_cannot_carry_is_refused_for_good_and_others_go_on() {
    with_rig(async |mut rig| {
        let (sink, topic) = (patient(&mut rig).await, rig.topic().await);
        let mut batch = events(&topic, &[None; 5]);
        batch[0].topic = "t".repeat(256);
        batch[1].name = "n".repeat(256);
        let long = "h".repeat(256);
        batch[2].headers = BTreeMap::from([(long, String::new())]);
        let large = "x".repeat(140_000);
        batch[3].headers = BTreeMap::from([("large".to_owned(), large)]);
        let answers = sink.publish(&batch).await;
        for answer in &answers[..4] {
            assert!(is_rejected(answer, true), "{answers:?}");
        }
        assert_eq!(answers[4], Delivery::Published);
        let largest = "x".repeat(120_000);
        batch[3].headers = BTreeMap::from([("large".to_owned(), largest)]);
        assert_eq!(
            sink.publish(&batch[3..]).await,
            vec![Delivery::Published; 2]
        );
    });
}

#[test]
fn a_publish_that_is_dropped_anywhere_harms_no_later_one() {
    with_rig(async |mut rig| {
        let (sink, topic) = (patient(&mut rig).await, rig.topic().await);
        for times in 1..60 {
            let batch = every_other_unroutable(&topic, "nowhere-at-all", 6);
            if poll_times(times, sink.publish(&batch)).await.is_some() {
                break;
            }
            let batch = every_other_unroutable(&topic, "nowhere-at-all", 6);
            assert_every_other_published(&sink.publish(&batch).await);
        }
    });
}

#[test]
fn a_broker_with_an_alarm_is_unavailable_and_gets_nothing_more() {
    run(async {
        let Some(mut rig) = rig_with("vm_memory_high_watermark.absolute = 1MB").await else {
            return;
        };
        let (sink, topic) = (rig.sink().await, rig.topic().await);
        // The broker says so only after the first message.
        eventually(SOON, async || {
            is_unavailable(&sink.publish(&one(&topic)).await[0])
        })
        .await;
        let began = Instant::now();
        let answers = sink.publish(&one(&topic)).await;
        assert!(is_unavailable(&answers[0]), "{answers:?}");
        assert!(began.elapsed() < TIMEOUT / 2, "{:?}", began.elapsed());
    });
}
