//! A Kafka to test against: the shared one, or one of the test's own that it may cut off and kill.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use effectively::testing::sink::Received;
use effectively_tests::Proxy;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tempfile::TempDir;

/// More than any wait here should take.
const BOUND: Duration = Duration::from_secs(60);
pub const PARTITIONS: i32 = 3;
/// The largest record that the topics take.
pub const LIMIT: usize = 20_000;

pub enum Server {
    Shared(String),
    Private(Box<PrivateServer>),
}

impl Server {
    pub fn shared() -> Option<Self> {
        match std::env::var("EFFECTIVELY_TEST_KAFKA") {
            Ok(address) if !address.is_empty() => Some(Self::Shared(address)),
            _ => {
                assert!(
                    std::env::var_os("EFFECTIVELY_TEST_SERVERS").is_none(),
                    "EFFECTIVELY_TEST_KAFKA is not set although EFFECTIVELY_TEST_SERVERS is"
                );
                skip("EFFECTIVELY_TEST_KAFKA is not set; ./tests/run starts a server")
            }
        }
    }

    pub async fn private() -> Option<Self> {
        let server = PrivateServer::start().await?;
        Some(Self::Private(Box::new(server)))
    }

    pub fn is_private(&self) -> bool {
        matches!(self, Self::Private(_))
    }

    pub fn proxy(&self) -> Arc<Proxy> {
        match self {
            Self::Shared(_) => panic!("the shared server has no proxy"),
            Self::Private(server) => server.proxy.clone(),
        }
    }

    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        match self {
            Self::Shared(address) => config.set("bootstrap.servers", address),
            Self::Private(server) => {
                config.set("bootstrap.servers", server.proxy.address().to_string())
            }
        };
        config
    }

    /// Makes a topic that no other test uses.
    pub async fn topic(&self, limit: usize) -> String {
        let name = format!("orders-{}", unique());
        self.make_topic(&name, PARTITIONS, limit).await;
        name
    }

    pub async fn make_topic(&self, name: &str, partitions: i32, limit: usize) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().expect("a client");
        let limit = limit.to_string();
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1))
            .set("max.message.bytes", &limit);
        let options = AdminOptions::new().operation_timeout(Some(BOUND));
        let made = admin.create_topics([&topic], &options).await;
        made.expect("an answer")[0].as_ref().expect("a topic");
        wait_until(|| self.partitions(name) == partitions).await;
    }

    /// Several tests may want it at once.
    pub async fn make_topic_if_missing(&self, name: &str) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().expect("a client");
        let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(BOUND));
        let made = admin.create_topics([&topic], &options).await;
        made.expect("an answer");
        wait_until(|| self.partitions(name) == 1).await;
    }

    fn partitions(&self, topic: &str) -> i32 {
        let consumer: BaseConsumer = self.config().create().expect("a client");
        let found = consumer.fetch_metadata(Some(topic), Duration::from_secs(5));
        let partitions = found.map_or(0, |found| {
            let led = |topic: &rdkafka::metadata::MetadataTopic| {
                topic
                    .partitions()
                    .iter()
                    .filter(|part| part.leader() >= 0)
                    .count()
            };
            found.topics().first().map_or(0, led)
        });
        i32::try_from(partitions).expect("a small number")
    }

    /// What a `read_committed` consumer gets, partition by partition.
    pub async fn received(&self, topic: &str, at_least: usize) -> Vec<Received> {
        let end = Instant::now() + BOUND;
        loop {
            let (config, name) = (self.config(), topic.to_owned());
            let read = tokio::task::spawn_blocking(move || read_all(config, &name));
            let received = read.await.expect("a reader");
            if received.len() >= at_least || Instant::now() > end {
                return received;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// `eventually` for a question that blocks, in a future that must be `Send`.
async fn wait_until(mut question: impl FnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !question() {
        assert!(Instant::now() < end, "still not so after {BOUND:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// From the beginning to the end.
fn read_all(mut config: ClientConfig, topic: &str) -> Vec<Received> {
    config
        .set("group.id", unique())
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&list).expect("an assignment");
    let (mut received, mut ended) = (BTreeMap::new(), 0);
    let end = Instant::now() + BOUND;
    while ended < PARTITIONS && Instant::now() < end {
        match consumer.poll(Duration::from_secs(1)) {
            Some(Ok(message)) => {
                let place = (message.partition(), message.offset());
                received.insert(place, as_received(&message));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            _ => {}
        }
    }
    received.into_values().collect()
}

fn as_received(message: &rdkafka::message::BorrowedMessage<'_>) -> Received {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let headers: BTreeMap<_, _> = message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter())
        .map(|header| (header.key.to_owned(), text(header.value.expect("a value"))))
        .collect();
    assert_eq!(headers["content-type"], "application/json");
    Received {
        id: headers["ce_id"].clone(),
        name: headers["ce_type"].clone(),
        key: message.key().map(text),
        data: message.payload().expect("a payload").to_vec(),
        headers,
    }
}

/// A broker of the test's own, with a proxy where its clients look for it.
pub struct PrivateServer {
    dir: TempDir,
    libs: String,
    proxy: Arc<Proxy>,
    child: Child,
}

impl PrivateServer {
    async fn start() -> Option<Self> {
        let Some(libs) = libs() else {
            return skip("the jars of Kafka are not there; ./tests/run fetches them");
        };
        let dir = TempDir::new().expect("a folder");
        let [internal, clients, controller] = [(); 3].map(|()| free_port());
        let proxy = Proxy::to((Ipv4Addr::LOCALHOST, clients).into());
        let advertised = proxy.address();
        let logs = dir.path().join("logs");
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=INTERNAL://127.0.0.1:{internal},CLIENTS://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=INTERNAL://127.0.0.1:{internal},CLIENTS://{advertised}\n\
             listener.security.protocol.map=INTERNAL:PLAINTEXT,CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=INTERNAL\n\
             log.dirs={}\nauto.create.topics.enable=false\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=4\n\
             transaction.abort.timed.out.transaction.cleanup.interval.ms=1000\n\
             share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500\n",
            logs.display()
        );
        fs::write(dir.path().join("properties"), properties).expect("a file");
        let format = [
            "kafka.tools.StorageTool",
            "format",
            "-t",
            "ZWZmZWN0aXZlbHktdGVzdA",
            "-c",
        ];
        let formatted = java(&libs, dir.path(), &format).status().expect("java");
        assert!(formatted.success(), "the storage could not be formatted");
        let child = java(&libs, dir.path(), &["kafka.Kafka"])
            .spawn()
            .expect("java");
        let mut server = Self {
            dir,
            libs,
            proxy: Arc::new(proxy),
            child,
        };
        server.await_ready().await;
        Some(server)
    }

    /// Ends it as hard as possible and starts it again with what it had stored.
    pub async fn restart(&mut self) {
        self.kill();
        let again = java(&self.libs, self.dir.path(), &["kafka.Kafka"]).spawn();
        self.child = again.expect("java");
        self.await_ready().await;
    }

    fn kill(&mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("its end");
    }

    async fn await_ready(&mut self) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.proxy.address().to_string());
        let probe: BaseConsumer = config.create().expect("a client");
        let up = || {
            let found = probe.fetch_metadata(None, Duration::from_secs(1));
            found.is_ok_and(|found| !found.brokers().is_empty())
        };
        wait_until(up).await;
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn java(libs: &str, dir: &std::path::Path, arguments: &[&str]) -> Command {
    let mut java = Command::new("java");
    java.args([
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-cp",
    ])
    .arg(format!("{libs}/*"))
    .args(arguments)
    .arg(dir.join("properties"))
    .stdin(Stdio::null())
    .stdout(Stdio::null())
    .stderr(Stdio::null());
    java
}

/// Where `tests/run` keeps the jars, or the folder that the variable names.
fn libs() -> Option<String> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let kept = cache.map(|cache| cache.join("effectively-tests/kafka-4.1.0"));
    let named = std::env::var_os("EFFECTIVELY_KAFKA_LIBS").map(PathBuf::from);
    let libs = named.or(kept).filter(|libs| libs.is_dir())?;
    Some(libs.display().to_string())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

pub fn unique() -> String {
    effectively::testing::sink::events("", &[None])[0]
        .id
        .to_string()
}

/// Says so where it is seen.
fn skip<T>(why: &str) -> Option<T> {
    let this_thread = thread::current();
    let test = this_thread.name().unwrap_or("a test");
    // Straight to the handle: `eprintln!` would be captured.
    let _ = writeln!(io::stderr().lock(), "SKIPPED {test}: {why}");
    None
}

/// The cases that break something have a server of their own.
pub async fn for_this_case() -> Option<Server> {
    let name = thread::current().name().unwrap_or_default().to_owned();
    if ["cut", "restart", "missing"]
        .iter()
        .any(|part| name.contains(part))
    {
        Server::private().await
    } else {
        Server::shared()
    }
}

/// Several cuts, so that one hits in whatever state the client is.
pub fn cut_soon(proxy: Arc<Proxy>) {
    thread::spawn(move || {
        for pause in [2, 9, 31] {
            thread::sleep(Duration::from_millis(pause));
            proxy.sever();
        }
    });
}

/// What both suites need; the sink is made by the function.
pub struct KafkaRig<S> {
    pub server: Server,
    pub make: fn(&Server) -> S,
}

impl<S: effectively::sink::Sink> effectively::testing::sink::Rig for KafkaRig<S> {
    type Sink = S;

    async fn sink(&mut self) -> S {
        (self.make)(&self.server)
    }

    async fn topic(&mut self) -> String {
        self.server.topic(LIMIT).await
    }

    async fn received(&mut self, topic: &str, at_least: usize) -> Vec<Received> {
        self.server.received(topic, at_least).await
    }

    fn missing_topic(&mut self) -> Option<String> {
        self.server
            .is_private()
            .then(|| format!("missing-{}", unique()))
    }

    // The broker says so, not the client, which takes 1 MB.
    fn oversized(&mut self) -> Option<usize> {
        Some(LIMIT + 1_000)
    }

    fn cut_soon(&mut self) -> bool {
        if self.server.is_private() {
            cut_soon(self.server.proxy());
        }
        self.server.is_private()
    }

    async fn restart(&mut self) -> bool {
        match &mut self.server {
            Server::Private(server) => server.restart().await,
            Server::Shared(_) => return false,
        }
        true
    }
}
