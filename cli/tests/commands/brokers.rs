//! `effectively relay` and `effectively doctor` with each broker. What a sink promises is shown by its own suite: here it is that
//! the options of the file reach it.

use std::env;
use std::io::{self, Write};
use std::process::Stdio;
use std::thread;

use effectively_tests::{TestDb, eventually};
use serde_json::Value;

use crate::kit::{File, OperatorDb, Ran, Running, SOON, ledger, on, orders, program};

/// The address of a server. Says so if there is none.
fn server(broker: &str) -> Option<String> {
    let variable = format!("EFFECTIVELY_TEST_{broker}");
    let found = env::var(&variable)
        .ok()
        .filter(|address| !address.is_empty());
    if found.is_none() {
        let promised = env::var_os("EFFECTIVELY_TEST_SERVERS").is_some();
        assert!(
            !promised,
            "{variable} is not set although the servers were promised"
        );
        let this_thread = thread::current();
        let test = this_thread.name().unwrap_or("a test");
        // Straight to the handle: `eprintln!` would be captured.
        let _ = writeln!(io::stderr().lock(), "SKIPPED {test}: {variable} is not set");
    }
    found
}

fn unique(name: &str) -> String {
    format!("{name}-{}", sqlx::types::Uuid::new_v4().simple())
}

/// Events of a topic of this test's own, and a file that routes them to this sink.
async fn waiting<DB: OperatorDb>(db: &TestDb<DB>, topic: &str, sink: &str) -> File {
    orders(&ledger(db).await, 0..20).await;
    db.execute(&format!("update effectively_outbox set topic = '{topic}'"))
        .await;
    File::holding(&format!(
        "[relay]\npoll = \"20ms\"\n[[route]]\ntopics = \"{topic}\"\nattempts = 3\n[route.sink]\n{sink}\n"
    ))
}

/// Publishes all that waits, and ends in order.
async fn published<DB: OperatorDb>(db: &TestDb<DB>, file: &File) {
    let ledger = ledger(db).await;
    let mut command = program(&["--database-url", db.url(), "relay", "--config", file.path()]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let relay = Running(child.expect("the program"));
    eventually(SOON, async || {
        ledger.outbox().pending().await.expect("a count") == 0
    })
    .await;
    let (code, _, err) = relay.stop("TERM").await;
    assert_eq!(code, Some(0), "{err}");
    let backlog = ledger.outbox().backlog().await.expect("a backlog");
    assert_eq!(backlog.dead_letters, 0, "{err}");
}

/// What the doctor says of the sink, each as its level and words.
fn findings(ran: &Ran) -> Vec<String> {
    let report = ran.json();
    let findings = report["findings"].as_array().expect("a list");
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    findings
        .iter()
        .filter(|finding| text(finding, "check").starts_with("sink."))
        .map(|finding| format!("{}: {}", text(finding, "level"), text(finding, "what")))
        .collect()
}

fn doctor<DB: OperatorDb>(db: &TestDb<DB>, file: &File, retention: &str) -> Ran {
    on(
        db,
        &[
            "doctor",
            "--json",
            "--config",
            file.path(),
            "--retention",
            retention,
        ],
    )
}

#[cfg(feature = "kafka")]
mod kafka {
    use effectively_tests::on_every_database;
    use rdkafka::ClientConfig;
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    use rdkafka::client::DefaultClientContext;

    use super::*;

    on_every_database!([sqlite] kafka_gets_the_events, a_topic_of_kafka_is_judged);

    async fn create(brokers: &str, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .create()
            .expect("a client");
        let new =
            NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set("retention.ms", "172800000");
        let created = admin.create_topics([&new], &AdminOptions::new()).await;
        created.expect("an answer").remove(0).expect("a topic");
    }

    async fn kafka_gets_the_events<DB: OperatorDb>(db: TestDb<DB>) {
        let Some(brokers) = server("KAFKA") else {
            return;
        };
        let topic = unique("orders");
        create(&brokers, &topic).await;
        let sink = format!(
            "type = \"kafka\"\nbrokers = \"{brokers}\"\nsettings = {{ \"linger.ms\" = 2 }}"
        );
        let file = waiting(&db, &topic, &sink).await;
        published(&db, &file).await;
        let prefix = unique("cli");
        create(&brokers, &format!("{prefix}-progress")).await;
        let sink = format!(
            "type = \"kafka-transactional\"\nbrokers = \"{brokers}\"\nprefix = \"{prefix}\""
        );
        let file = waiting(&db, &topic, &sink).await;
        published(&db, &file).await;
    }

    async fn a_topic_of_kafka_is_judged<DB: OperatorDb>(db: TestDb<DB>) {
        let Some(brokers) = server("KAFKA") else {
            return;
        };
        let topic = unique("orders");
        let sink = format!("type = \"kafka\"\nbrokers = \"{brokers}\"");
        let file = waiting(&db, &topic, &sink).await;
        let found = findings(&doctor(&db, &file, "24h").ends(1));
        assert!(found[0].starts_with("error: "), "{found:?}");
        create(&brokers, &topic).await;
        let found = findings(&doctor(&db, &file, "24h").ends(0));
        assert_eq!(
            found,
            [format!(
                "warning: {topic} keeps events for 2days, claims are kept for 1day only"
            )]
        );
        let found = findings(&doctor(&db, &file, "2days").ends(0));
        assert!(found[0].starts_with("ok: "), "{found:?}");
    }
}

#[cfg(feature = "nats")]
mod nats {
    use std::time::Duration;

    use async_nats::jetstream::{self, stream};
    use effectively_tests::on_every_database;

    use super::*;

    on_every_database!([sqlite] nats_gets_the_events_and_its_stream_is_judged);

    async fn nats_gets_the_events_and_its_stream_is_judged<DB: OperatorDb>(db: TestDb<DB>) {
        let Some(url) = server("NATS") else { return };
        let (topic, prefix) = (unique("orders"), unique("cli"));
        let sink = format!("type = \"nats\"\nservers = \"{url}\"\nprefix = \"{prefix}\"");
        let file = waiting(&db, &topic, &sink).await;
        let found = findings(&doctor(&db, &file, "24h").ends(1));
        assert_eq!(
            found,
            [format!("error: no stream has the subject {prefix}.{topic}")]
        );
        let context = jetstream::new(async_nats::connect(&url).await.expect("a client"));
        let config = stream::Config {
            name: prefix.clone(),
            subjects: vec![format!("{prefix}.>")],
            max_age: Duration::from_secs(3600),
            duplicate_window: Duration::from_secs(10),
            ..Default::default()
        };
        let stream = context.create_stream(config).await.expect("a stream");
        let found = findings(&doctor(&db, &file, "24h").ends(0));
        assert_eq!(
            found[0],
            format!("warning: stream {prefix} drops repeats for 10s")
        );
        assert_eq!(
            found[1],
            format!("ok: stream {prefix} keeps events for 1h, claims are kept for 1day")
        );
        published(&db, &file).await;
        let held = stream.get_info().await.expect("its state").state.messages;
        context.delete_stream(&prefix).await.expect("gone");
        assert_eq!(held, 20);
    }
}

#[cfg(feature = "sqs")]
mod sqs {
    use aws_sdk_sqs::{
        Client, Config,
        config::{BehaviorVersion, Credentials, Region},
        types::QueueAttributeName,
    };
    use effectively_tests::on_every_database;

    use super::*;

    on_every_database!([sqlite] sqs_gets_the_events_and_its_queue_is_judged);

    async fn sqs_gets_the_events_and_its_queue_is_judged<DB: OperatorDb>(db: TestDb<DB>) {
        let Some(endpoint) = server("SQS") else {
            return;
        };
        let topic = unique("orders");
        let sink = format!(
            "type = \"sqs\"\nendpoint = \"{endpoint}\"\nregion = \"elasticmq\"\naccess_key_id = \"test\"\nsecret_access_key = \"test\"\nfifo = true"
        );
        let file = waiting(&db, &topic, &sink).await;
        let found = findings(&doctor(&db, &file, "24h").ends(1));
        assert_eq!(
            found,
            [format!("error: {topic}: its queue cannot be found")]
        );
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(&endpoint)
            .region(Region::new("elasticmq"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"));
        let client = Client::from_conf(config.build());
        let queue = client.create_queue().queue_name(format!("{topic}.fifo"));
        let queue = queue.attributes(QueueAttributeName::FifoQueue, "true");
        queue.send().await.expect("a queue");
        let found = findings(&doctor(&db, &file, "24h").ends(0));
        assert_eq!(found[0], format!("ok: {topic}: a FIFO queue"));
        published(&db, &file).await;
    }
}

#[cfg(feature = "rabbitmq")]
mod rabbitmq {
    use effectively_tests::on_every_database;
    use lapin::{
        Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable,
    };

    use super::*;

    on_every_database!([sqlite] rabbitmq_gets_the_events);

    async fn rabbitmq_gets_the_events<DB: OperatorDb>(db: TestDb<DB>) {
        let Some(url) = server("RABBITMQ") else {
            return;
        };
        let topic = unique("orders");
        let connection = Connection::connect(&url, ConnectionProperties::default()).await;
        let connection = connection.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        let exclusive = QueueDeclareOptions {
            auto_delete: true,
            ..Default::default()
        };
        let queue = channel.queue_declare(topic.as_str().into(), exclusive, FieldTable::default());
        queue.await.expect("a queue");
        let file = waiting(
            &db,
            &topic,
            &format!("type = \"rabbitmq\"\nurl = \"{url}\""),
        )
        .await;
        published(&db, &file).await;
        let found = findings(&doctor(&db, &file, "24h").ends(0));
        assert_eq!(found, [format!("not_checked: {topic}")]);
    }
}

#[cfg(feature = "redis")]
mod redis {
    use effectively_tests::on_every_database;

    use super::*;

    on_every_database!([sqlite] redis_gets_the_events);

    async fn redis_gets_the_events<DB: OperatorDb>(db: TestDb<DB>) {
        let Some(url) = server("REDIS") else { return };
        let sink = format!(
            "type = \"redis\"\nurl = \"{url}\"\nprefix = \"{}:\"",
            unique("cli")
        );
        let file = waiting(&db, &unique("orders"), &sink).await;
        published(&db, &file).await;
    }
}

#[cfg(feature = "mqtt")]
mod mqtt {
    use effectively_tests::on_every_database;

    use super::*;

    on_every_database!([sqlite] mqtt_gets_the_events);

    async fn mqtt_gets_the_events<DB: OperatorDb>(db: TestDb<DB>) {
        let Some(url) = server("MQTT") else { return };
        let address = url.trim_start_matches("mqtt://");
        let (host, port) = address.split_once(':').expect("host:port");
        let sink = format!("type = \"mqtt\"\nhost = \"{host}\"\nport = {port}\nprefix = \"cli/\"");
        let file = waiting(&db, &unique("orders"), &sink).await;
        published(&db, &file).await;
    }
}

#[cfg(feature = "webhook")]
mod webhook {
    use effectively_tests::on_every_database;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    on_every_database!([sqlite] a_webhook_gets_the_events);

    async fn a_webhook_gets_the_events<DB: OperatorDb>(db: TestDb<DB>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let receiver = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(async move {
                    let mut request = vec![0; 16 * 1024];
                    let length = stream.read(&mut request).await.unwrap_or(0);
                    let head = String::from_utf8_lossy(&request[..length]).to_lowercase();
                    let named =
                        head.contains("x-shop: 7\r\n") && head.contains("webhook-signature: v1,");
                    let status = if named {
                        "204 No Content"
                    } else {
                        "400 Bad Request"
                    };
                    let answer = format!(
                        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        let sink = format!(
            "type = \"webhook\"\nurl = \"http://{address}/hooks\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\nallow_http = true\nallow_internal = true\nheaders = {{ x-shop = \"7\" }}"
        );
        let file = waiting(&db, &unique("orders"), &sink).await;
        published(&db, &file).await;
        receiver.abort();
    }
}
