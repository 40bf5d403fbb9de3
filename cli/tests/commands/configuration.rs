//! `effectively relay --check`: every mistake with its place, and what is right there.

use crate::kit::{File, effectively, program};

const DATABASE: &str = "[database]\nurl = \"sqlite:none.db\"\n";
const STDOUT: &str = "[[route]]\ntopics = \"orders\"\nsink = { type = \"stdout\" }\n";

fn check(text: &str) -> crate::kit::Ran {
    let file = File::holding(text);
    effectively(&[
        "--database-url",
        "sqlite:none.db",
        "relay",
        "--check",
        "--config",
        file.path(),
    ])
}

#[test]
fn a_good_file_is_fine_and_nothing_is_connected_to() {
    let all = r#"
[database]
url = "postgres://ada:secret@nowhere.invalid/shop"
pool = 9
schema = "toolkit"
table_prefix = "once_"

[relay]
batch = 100
concurrency = 2
lease = "5s"
poll = "100ms"
linger = "5ms"
publish_timeout = "20s"
grace = "5s"
max_crashes = 2
source = "/shop"
notify = true

[[route]]
topics = ["orders", "mail.*"]
order = "skip"
attempts = 3
backoff = ["1s", "10m"]
sink = { type = "stdout" }

[[route]]
topics = "*"
[route.sink]
type = "stdout"
"#;
    let ran = check(all).ends(0);
    assert!(ran.out.ends_with("is fine: orders, mail.*, *\n"), "{ran:?}");
}

#[test]
fn mistakes_are_told_with_their_place() {
    let wrong: &[(&str, &str, &str)] = &[
        ("[relay\n", ":1:", "relay.toml"),
        ("colour = 1\n", ":1:1:", "unknown field `colour`"),
        ("[relay]\nbatsch = 1\n", ":2:1:", "unknown field `batsch`"),
        ("[relay]\nbatch = \"hunter2\"\n", ":2:9:", "expected"),
        (
            "[relay]\nlease = 10\n",
            ":2:9:",
            "a duration is text with its unit",
        ),
        ("[relay]\nlease = \"10\"\n", ":2:9:", "such as \"250ms\""),
        (
            "[relay]\nbatch = 0\n",
            ":1:1:",
            "a batch is 1 to 5,000 events",
        ),
        (
            "[database]\nurl = \"${EFFECTIVELY_UNSET}\"\n",
            ":2:7:",
            "EFFECTIVELY_UNSET is not set",
        ),
        (
            "[database]\nurl = \"${EFFECTIVELY\"\n",
            ":2:7:",
            "without `}`",
        ),
        ("metrics = \"here\"\n", ":1:11:", "socket address"),
        ("[[route]]\ntopics = \"a\"\n", ":1:1:", "has no sink"),
        (
            "[[route]]\ntopics = \"a\"\nsink = \"stdout\"\n",
            ":3:8:",
            "a sink is a table",
        ),
        (
            "[[route]]\ntopics = \"a\"\nsink = {}\n",
            ":3:8:",
            "has no `type`",
        ),
        (
            "[[route]]\ntopics = \"a\"\nsink = { type = \"pigeon\" }\n",
            ":3:17:",
            "it is one of stdout, kafka",
        ),
        (
            "[[route]]\ntopics = \"a\"\nsink = { type = \"stdout\", colour = 1 }\n",
            ":3:27:",
            "unknown field `colour`",
        ),
        (
            "[[route]]\nsink = { type = \"stdout\" }\n",
            ":1:1:",
            "missing field `topics`",
        ),
        (
            "[[route]]\ntopics = \"a*b\"\nsink = { type = \"stdout\" }\n",
            ":2:10:",
            "followed by one `*`",
        ),
        (
            "[[route]]\ntopics = []\nsink = { type = \"stdout\" }\n",
            ":2:10:",
            "at least one topic",
        ),
        (
            "[[route]]\ntopics = \"a\"\norder = \"maybe\"\nsink = { type = \"stdout\" }\n",
            ":3:9:",
            "`block` or `skip`",
        ),
        (
            "[[route]]\ntopics = \"a\"\nbackoff = [\"1s\"]\nsink = { type = \"stdout\" }\n",
            ":3:11:",
            "array of length 2",
        ),
        (
            "[[route]]\ntopics = \"orders\"\nsink = { type = \"stdout\" }\n",
            ":6:10:",
            "another route has the same topics",
        ),
    ];
    for (text, place, message) in wrong {
        let ran = check(&format!("{text}\n{STDOUT}")).ends(2);
        let tells = ran.err.contains(place) && ran.err.contains(message);
        assert!(tells, "{text}\n{ran:?}");
        assert!(
            ran.out.is_empty() && !ran.err.contains("hunter2"),
            "{ran:?}"
        );
    }
}

#[test]
fn a_file_without_a_route_is_told() {
    let ran = check(DATABASE).ends(2);
    let told = "relay.toml:1:1: a relay needs at least one [[route]]";
    assert!(ran.err.contains(told), "{ran:?}");
}

#[test]
fn the_environment_fills_in() {
    let file = File::holding(&format!(
        "[database]\nurl = \"${{SCHEME}}:$${{x}}${{REST}}\"\n{STDOUT}"
    ));
    let mut command = program(&["relay", "--check", "--config", file.path()]);
    let output = command
        .env("SCHEME", "sqlite")
        .env("REST", "rest.db")
        .output();
    assert_eq!(output.expect("the program").status.code(), Some(0));
    let file = File::holding(&format!("[database]\nurl = \"${{SCHEME}}\"\n{STDOUT}"));
    let mut command = program(&["relay", "--check", "--config", file.path()]);
    let output = command
        .env("SCHEME", "hunter2")
        .output()
        .expect("the program");
    assert_eq!(output.status.code(), Some(2));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let ran = effectively(&["relay", "--config", "none.toml"]).ends(2);
    assert!(ran.err.contains("none.toml: No such file"), "{ran:?}");
}

/// The sinks that are built in, or what is said of those that are not.
#[test]
fn every_sink_is_built_from_its_options() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let sinks: &[(&str, bool, String)] = &[
        ("kafka", cfg!(feature = "kafka"), "brokers = \"none.invalid:9092\", settings = { \"linger.ms\" = 5 }".into()),
        ("kafka-transactional", cfg!(feature = "kafka"), "brokers = \"none.invalid:9092\", prefix = \"shop\", progress_topic = \"p\"".into()),
        ("nats", cfg!(feature = "nats"), "servers = [\"nats://none.invalid:4222\"], prefix = \"shop\", timeout = \"3s\"".into()),
        ("rabbitmq", cfg!(feature = "rabbitmq"), "url = \"amqp://none.invalid\", exchange = \"events\", timeout = \"3s\"".into()),
        ("redis", cfg!(feature = "redis"), "url = \"redis://none.invalid\", explicit_ids = true, max_len = 1000".into()),
        ("sqs", cfg!(feature = "sqs"), "endpoint = \"http://none.invalid\", region = \"eu-central-1\", access_key_id = \"a\", secret_access_key = \"b\", fifo = true, queues = { orders = \"http://none.invalid/q\" }".into()),
        ("mqtt", cfg!(feature = "mqtt"), "host = \"none.invalid\", user = \"u\", password = \"p\", qos2 = true, keep_alive = \"30s\"".into()),
        ("webhook", cfg!(feature = "webhook"), format!("url = \"http://shop.example/hooks\", secret = [\"{secret}\"], allow_http = true, concurrency = 4, headers = {{ Authorization = \"x\" }}")),
    ];
    for (kind, built_in, options) in sinks {
        let route = |options: &str| {
            format!(
                "{DATABASE}[[route]]\ntopics = \"orders\"\nsink = {{ type = \"{kind}\", {options} }}\n"
            )
        };
        let ran = check(&route(options));
        if !built_in {
            let ran = ran.ends(2);
            assert!(
                ran.err.contains(":5:17: this program was built without"),
                "{ran:?}"
            );
            continue;
        }
        ran.ends(0);
        let wrong = check(&route(&format!("{options}, colour = 1"))).ends(2);
        assert!(
            wrong.err.contains(":5:") && wrong.err.contains("unknown field `colour`"),
            "{wrong:?}"
        );
    }
}

/// What `effectively relay --help` shows.
#[test]
#[cfg(all(
    feature = "kafka",
    feature = "mqtt",
    feature = "nats",
    feature = "prometheus",
    feature = "rabbitmq",
    feature = "redis",
    feature = "sqs",
    feature = "webhook"
))]
fn the_example_of_the_help_is_right() {
    let help = effectively(&["relay", "--help"]).ends(0).out;
    let (_, example) = help.split_once("can hold:\n").expect("an example");
    let file = File::holding(example);
    let mut command = program(&["relay", "--check", "--config", file.path()]);
    command.env("DATABASE_URL", "postgres://nowhere.invalid/shop");
    command.env("WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    for name in [
        "NATS_TOKEN",
        "RABBITMQ_PASSWORD",
        "MQTT_PASSWORD",
        "WEBHOOK_TOKEN",
    ] {
        command.env(name, "x");
    }
    let output = command.output().expect("the program");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
}
