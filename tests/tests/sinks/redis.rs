//! The sink of Redis Streams against the conformance suite and a real server.

// A test that cannot go on says why and stops.
#![allow(clippy::expect_used)]

use std::{
    collections::{BTreeMap, HashMap},
    env,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use effectively::{
    Envelope,
    sink::{Delivery, Sink, redis::RedisStreams},
    testing::sink::{self, Received, Rig},
};
use effectively_tests::{Proxy, cancel_after, eventually, poll_times};
use redis::{
    AsyncCommands, Client, RedisResult, Value, aio::MultiplexedConnection,
    streams::StreamRangeReply,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

mod ids_of_the_server {
    effectively::sink_conformance!(super::rig);
}

/// The suite numbers the events of each batch from 1: nearly all come too late, and go the way of late ones.
mod explicit_ids {
    effectively::sink_conformance!(super::explicit);
}

const VARIABLE: &str = "EFFECTIVELY_TEST_REDIS";
const LIMIT: usize = 100_000;
const BOUND: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

async fn rig() -> Option<Redis> {
    Some(Redis::at(server()?, false))
}

async fn explicit() -> Option<Redis> {
    Some(Redis::at(server()?, true))
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
    let address = url.trim_start_matches("redis://").trim_end_matches('/');
    Some(address.parse().expect("redis://address:port"))
}

fn skipped(why: &str) {
    let this_thread = thread::current();
    let test = this_thread.name().unwrap_or("a test");
    let _ = writeln!(io::stderr().lock(), "SKIPPED {test}: {why}");
}

fn client(address: SocketAddr) -> Client {
    Client::open(format!("redis://{address}/")).expect("a client")
}

/// Once the server answers. Not by `eventually`: the rig's futures must be `Send`, and the compiler cannot see that of those
/// that hold an async closure.
async fn connect(address: SocketAddr) -> MultiplexedConnection {
    let (client, end) = (client(address), Instant::now() + BOUND);
    loop {
        match ask(&client).await {
            Ok(connection) => return connection,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        sleep(PAUSE).await;
    }
}

async fn ask(client: &Client) -> RedisResult<MultiplexedConnection> {
    let mut connection = client.get_multiplexed_async_connection().await?;
    let _: String = redis::cmd("PING").query_async(&mut connection).await?;
    Ok(connection)
}

fn unique() -> String {
    format!("test.{}", sink::events("", &[None])[0].id)
}

struct Redis {
    server: SocketAddr,
    /// Stands before the server, so that connections can be cut.
    proxy: Arc<Proxy>,
    explicit: bool,
    private: Option<PrivateServer>,
}

impl Redis {
    fn at(server: SocketAddr, explicit: bool) -> Self {
        Self {
            server,
            proxy: Arc::new(Proxy::to(server)),
            explicit,
            private: None,
        }
    }

    /// On a server of its own, which can be killed.
    async fn alone(explicit: bool) -> Option<Self> {
        let private = PrivateServer::start(&[]).await?;
        let server = private.address;
        Some(Self {
            private: Some(private),
            ..Self::at(server, explicit)
        })
    }

    fn build(&self) -> RedisStreams {
        let sink = RedisStreams::new(client(self.proxy.address()))
            .max_bytes(LIMIT)
            .timeout(Duration::from_secs(5));
        if self.explicit {
            sink.explicit_ids()
        } else {
            sink
        }
    }

    async fn read(&self, topic: &str) -> Vec<Received> {
        let mut redis = connect(self.server).await;
        let keys: Vec<_> = match self.explicit {
            true => (0..64).map(|place| format!("{topic}.{place}")).collect(),
            false => vec![topic.to_owned()],
        };
        let mut all = Vec::new();
        for key in keys {
            let stream: StreamRangeReply = redis.xrange_all(key).await.expect("a stream");
            all.extend(stream.ids.into_iter().map(|entry| received(&entry.map)));
        }
        all
    }
}

fn received(fields: &HashMap<String, Value>) -> Received {
    let text = |name: &str| {
        let value = fields.get(name)?.clone();
        redis::from_redis_value::<String>(value).ok()
    };
    let headers: BTreeMap<_, _> = fields
        .keys()
        .filter_map(|name| Some((name.clone(), text(name)?)))
        .collect();
    assert_eq!(text("id"), text("ce_id"), "the id is there twice");
    Received {
        id: text("id").expect("an id"),
        name: text("ce_type").expect("a type"),
        key: text("ce_partitionkey"),
        data: text("data").expect("data").into_bytes(),
        headers,
    }
}

impl Rig for Redis {
    type Sink = RedisStreams;

    async fn sink(&mut self) -> RedisStreams {
        self.build()
    }

    async fn topic(&mut self) -> String {
        unique()
    }

    async fn received(&mut self, topic: &str, at_least: usize) -> Vec<Received> {
        let end = Instant::now() + BOUND;
        loop {
            let all = self.read(topic).await;
            if all.len() >= at_least || Instant::now() > end {
                return all;
            }
            sleep(PAUSE).await;
        }
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

/// A server with a directory of its own, killed when dropped.
struct PrivateServer {
    address: SocketAddr,
    options: Vec<String>,
    directory: TempDir,
    process: Child,
}

impl PrivateServer {
    /// `None`, and says so, if the program is not installed.
    async fn start(options: &[&str]) -> Option<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let directory = TempDir::new().expect("a directory");
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        let process = spawn(address, &options, &directory);
        let Ok(process) = process else {
            skipped("redis-server is not installed");
            return None;
        };
        let server = Self {
            address,
            options,
            directory,
            process,
        };
        connect(address).await;
        Some(server)
    }

    async fn restart(&mut self) {
        self.process.kill().expect("SIGKILL");
        self.process.wait().expect("its end");
        self.process =
            spawn(self.address, &self.options, &self.directory).expect("redis-server, again");
        connect(self.address).await;
    }

    async fn tell(&self, command: &[&str]) {
        let mut redis = connect(self.address).await;
        let mut told = redis::cmd(command[0]);
        told.arg(&command[1..]);
        let answer: String = told.query_async(&mut redis).await.expect("an answer");
        assert_eq!(answer, "OK");
    }
}

fn spawn(address: SocketAddr, options: &[String], directory: &TempDir) -> io::Result<Child> {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
        .args(["--save", "", "--appendonly", "yes"])
        .args(["--appendfsync", "always"])
        .args(options)
        .arg("--dir")
        .arg(directory.path())
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

fn event(topic: &str, outbox_id: i64) -> Envelope {
    let mut event = sink::events(topic, &[Some("ada")]).remove(0);
    event.outbox_id = outbox_id;
    event
}

fn is_unavailable(answers: &[Delivery]) -> bool {
    let mut answers = answers.iter();
    answers.all(|answer| matches!(answer, Delivery::Unavailable(_)))
}

fn ids(received: &[Received]) -> Vec<&str> {
    received.iter().map(|got| got.id.as_str()).collect()
}

#[test]
fn a_killed_server_has_what_was_published() {
    for explicit in [false, true] {
        sink::run(async {
            if let Some(rig) = Redis::alone(explicit).await {
                sink::a_restart_in_the_middle_loses_nothing(rig).await;
            }
        });
    }
}

#[test]
fn a_key_of_another_type_refuses_its_events_only() {
    sink::run(async {
        let Some(rig) = rig().await else { return };
        let (sink, topic, taken) = (rig.build(), unique(), unique());
        let mut redis = connect(rig.server).await;
        let () = redis.set(&taken, "a string").await.expect("set");
        let batch = [event(&taken, 1), event(&topic, 2), event(&topic, 3)];
        let answers = sink.publish(&batch).await;
        let Delivery::Rejected(rejected) = &answers[0] else {
            panic!("{answers:?}");
        };
        assert_eq!(rejected.reason(), "redis answered WRONGTYPE");
        assert!(!rejected.is_fatal());
        assert!(answers[1].is_published() && answers[2].is_published());
        assert_eq!(rig.read(&topic).await.len(), 2);
    });
}

#[test]
fn headers_with_our_names_hide_nothing() {
    sink::run(async {
        let Some(rig) = rig().await else { return };
        let (sink, topic) = (rig.build(), unique());
        let mut event = event(&topic, 1);
        for name in ["id", "data", "ce_id", "ce_type", "idea"] {
            event.headers.insert(name.to_owned(), "mine".to_owned());
        }
        assert_eq!(
            sink.publish(std::slice::from_ref(&event)).await,
            [Delivery::Published]
        );
        let received = rig.read(&topic).await;
        let (id, name) = (event.id.to_string(), &event.name);
        assert_eq!((&received[0].id, &received[0].name), (&id, name));
        assert_eq!(received[0].data, event.data);
        for name in [
            "header_id",
            "header_data",
            "header_ce_id",
            "header_ce_type",
            "idea",
        ] {
            assert_eq!(received[0].headers[name], "mine");
        }
    });
}

#[test]
fn a_server_that_cannot_write_is_unavailable() {
    sink::run(async {
        let Some(server) = PrivateServer::start(&[]).await else {
            return;
        };
        let rig = Redis::at(server.address, false);
        let (sink, topic) = (rig.build(), unique());
        let batch = [event(&topic, 1), event(&topic, 2)];
        let full = ["CONFIG", "SET", "maxmemory", "1"];
        let roomy = ["CONFIG", "SET", "maxmemory", "0"];
        let demoted = ["REPLICAOF", "127.0.0.1", "1"];
        let promoted = ["REPLICAOF", "NO", "ONE"];
        for (broken, mended) in [(&full[..], &roomy[..]), (&demoted, &promoted)] {
            server.tell(broken).await;
            let answers = sink.publish(&batch).await;
            assert!(is_unavailable(&answers), "{broken:?}: {answers:?}");
            // It may lead to a server that will not become writable again.
            eventually(BOUND, async || rig.proxy.connections() == 0).await;
            server.tell(mended).await;
            let answers = sink.publish(&batch).await;
            assert!(answers.iter().all(Delivery::is_published), "{answers:?}");
        }
    });
}

#[test]
fn a_silent_connection_is_given_up() {
    sink::run(async {
        let Some(rig) = rig().await else { return };
        let (sink, topic) = (rig.build().timeout(Duration::from_millis(300)), unique());
        let batch = [event(&topic, 1)];
        rig.proxy.stall_at(b"XADD");
        assert!(is_unavailable(&sink.publish(&batch).await));
        assert!(!rig.proxy.is_armed());
        // The relay's own bound may be shorter: then the future is dropped before the sink has seen that it is silent.
        rig.proxy.stall_at(b"XADD");
        let dropped = cancel_after(Duration::from_millis(100), sink.publish(&batch)).await;
        assert_eq!(dropped, None);
        let sink = sink.timeout(BOUND);
        assert_eq!(sink.publish(&batch).await, [Delivery::Published]);
    });
}

#[test]
fn a_lost_answer_is_unavailable_and_its_repeat_is_recognised() {
    for explicit in [false, true] {
        sink::run(async {
            let Some(server) = server() else { return };
            let rig = Redis::at(server, explicit);
            let (sink, topic) = (rig.build(), unique());
            let batch = [event(&topic, 7), event(&topic, 8)];
            rig.proxy.cut_next_reply(b"XADD");
            assert!(is_unavailable(&sink.publish(&batch).await));
            assert!(!rig.proxy.is_armed());
            assert_eq!(rig.read(&topic).await.len(), 2, "the server has them");
            let answers = sink.publish(&batch).await;
            assert!(answers.iter().all(Delivery::is_published), "{answers:?}");
            let received = rig.read(&topic).await;
            let (first, second) = (batch[0].id.to_string(), batch[1].id.to_string());
            if explicit {
                assert_eq!(ids(&received), [&*first, &*second]);
            } else {
                assert_eq!(ids(&received), [&*first, &*second, &*first, &*second]);
            }
        });
    }
}

#[test]
fn a_late_event_is_no_repeat() {
    sink::run(async {
        let Some(rig) = explicit().await else { return };
        let (sink, topic) = (rig.build(), unique());
        let early = [event(&topic, 5), event(&topic, 9)];
        // Committed after them with a lower id, and one with a taken id, as after a restored backup.
        let late = [event(&topic, 7), event(&topic, 9)];
        let last = [event(&topic, 10)];
        // Each twice: the second time they are found.
        for batch in [&early[..], &early, &late, &late, &last, &late, &last] {
            for answer in sink.publish(batch).await {
                assert_eq!(answer, Delivery::Published);
            }
        }
        let sent: Vec<_> = [early, late].into_iter().flatten().chain(last).collect();
        let sent: Vec<_> = sent.iter().map(|event| event.id.to_string()).collect();
        assert_eq!(ids(&rig.read(&topic).await), sent);
    });
}

#[test]
fn a_consumer_may_delete_what_it_has_read() {
    sink::run(async {
        let Some(rig) = explicit().await else { return };
        let (sink, topic) = (rig.build(), unique());
        let read = event(&topic, 5);
        let key = format!("{topic}.{}", read.partition);
        assert_eq!(sink.publish(&[read]).await, [Delivery::Published]);
        let mut redis = connect(rig.server).await;
        let deleted: usize = redis.xdel(key, &["5-0"]).await.expect("deleted");
        assert_eq!(deleted, 1);
        let late = event(&topic, 3);
        let id = late.id.to_string();
        assert_eq!(sink.publish(&[late]).await, [Delivery::Published]);
        assert_eq!(ids(&rig.read(&topic).await), [id]);
    });
}

#[test]
fn a_dropped_batch_spoils_no_later_one() {
    sink::run(async {
        let Some(rig) = rig().await else { return };
        let (sink, topic) = (rig.build(), unique());
        let mut sent = Vec::new();
        for polls in 1.. {
            let (lost, kept) = ([event(&topic, 1)], [event(&topic, 2)]);
            let ended = poll_times(polls, sink.publish(&lost)).await.is_some();
            assert_eq!(sink.publish(&kept).await, [Delivery::Published]);
            sent.push(kept[0].id.to_string());
            if ended {
                break;
            }
        }
        let received = rig.read(&topic).await;
        let received = ids(&received);
        assert!(sent.iter().all(|id| received.contains(&id.as_str())));
    });
}

#[test]
fn a_limit_of_the_server_can_be_told_to_the_sink() {
    sink::run(async {
        let limit = 1024 * 1024;
        let options = ["--proto-max-bulk-len", "1048576"];
        let Some(server) = PrivateServer::start(&options).await else {
            return;
        };
        let sink = RedisStreams::new(client(server.address)).max_bytes(limit);
        let topic = unique();
        let mut batch = [event(&topic, 1), event(&topic, 2), event(&topic, 3)];
        batch[0].data = vec![b'1'; limit];
        batch[1].data = vec![b'1'; limit + 1];
        let answers = sink.publish(&batch).await;
        assert!(matches!(&answers[1], Delivery::Rejected(rejected) if rejected.is_fatal()));
        assert!(
            answers[0].is_published() && answers[2].is_published(),
            "{answers:?}"
        );
    });
}

#[test]
fn trimming_is_asked_for() {
    sink::run(async {
        let Some(rig) = rig().await else { return };
        let topic = unique();
        let sink = rig.build().prefix("trimmed:").max_len(100);
        let batch: Vec<_> = (1..=500).map(|number| event(&topic, number)).collect();
        let answers = sink.publish(&batch).await;
        assert!(answers.iter().all(Delivery::is_published));
        let left = rig.read(&format!("trimmed:{topic}")).await.len();
        assert!((100..400).contains(&left), "{left}");
    });
}

#[test]
fn the_password_is_not_shown() {
    let client = Client::open("redis://user:secret@127.0.0.1/").expect("a client");
    let shown = format!("{:?}", RedisStreams::new(client));
    assert!(!shown.contains("secret"), "{shown}");
}
