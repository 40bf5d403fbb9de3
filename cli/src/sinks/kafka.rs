//! `type = "kafka"` and `type = "kafka-transactional"`

use std::{collections::BTreeMap, time::Duration};

use effectively::sink::kafka::{Kafka, Transactional};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::DefaultClientContext,
};
use serde::Deserialize;

use super::whole_topics;
use crate::{
    commands::doctor::Finding,
    config::{Config, RouteConfig, SinkConfig},
    failure::Failure,
};

const CHECK: &str = "sink.kafka";
const PATIENCE: Duration = Duration::from_secs(10);
const TRANSACTIONAL: &str = "kafka-transactional";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// `bootstrap.servers`
    brokers: String,
    /// Any setting of librdkafka.
    #[serde(default)]
    settings: BTreeMap<String, Scalar>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransactionalOptions {
    brokers: String,
    #[serde(default)]
    settings: BTreeMap<String, Scalar>,
    prefix: String,
    progress_topic: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "text, a number, true or false")]
enum Scalar {
    Text(String),
    Number(i64),
    Real(f64),
    Flag(bool),
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
            Self::Real(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

fn client(brokers: String, settings: BTreeMap<String, Scalar>) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("client.id", "effectively");
    for (name, value) in settings {
        client.set(name, value.into_text());
    }
    client.set("bootstrap.servers", brokers);
    client
}

pub(super) fn idempotent(sink: &SinkConfig<'_>) -> Result<Kafka, Failure> {
    let options: Options = sink.options()?;
    let kafka = Kafka::new(client(options.brokers, options.settings));
    kafka.map_err(|error| sink.wrong(error))
}

pub(super) fn transactional(route: &RouteConfig<'_>) -> Result<Transactional, Failure> {
    let sink = &route.sink;
    if route.topics.len() > 1 {
        return Err(sink.source.wrong(
            &route.topics_place,
            "a transactional sink serves one route with one pattern, for example \"orders.*\": its transactional ids are those of the partitions",
        ));
    }
    let options: TransactionalOptions = sink.options()?;
    let client = client(options.brokers, options.settings);
    let kafka = Transactional::new(client, options.prefix).map_err(|error| sink.wrong(error))?;
    Ok(match options.progress_topic {
        Some(topic) => kafka.progress_topic(topic),
        None => kafka,
    })
}

/// Two sinks with one prefix would shut each other out.
pub(super) fn one_prefix_each(config: &Config<'_>) -> Result<(), Failure> {
    let mut prefixes = Vec::new();
    for route in &config.routes {
        if route.sink.kind == TRANSACTIONAL {
            let options: TransactionalOptions = route.sink.options()?;
            if prefixes.contains(&options.prefix) {
                return Err(route.sink.wrong(
                    "another route has the same `prefix`: the two would shut each other out; give each its own",
                ));
            }
            prefixes.push(options.prefix);
        }
    }
    Ok(())
}

/// Whether the topics are there, and whether claims outlive what is in them.
pub(super) async fn examine(route: &RouteConfig<'_>, retention: Duration) -> Vec<Finding> {
    let client = if route.sink.kind == TRANSACTIONAL {
        let options = route.sink.options::<TransactionalOptions>();
        options.map(|options| client(options.brokers, options.settings))
    } else {
        let options = route.sink.options::<Options>();
        options.map(|options| client(options.brokers, options.settings))
    };
    // It was read before.
    let Ok(client) = client else {
        return Vec::new();
    };
    let topics: Vec<String> = whole_topics(route).map(str::to_owned).collect();
    if topics.is_empty() {
        return vec![Finding::not_checked(
            CHECK,
            "the topics are not written whole",
        )];
    }
    let admin: AdminClient<DefaultClientContext> = match client.create() {
        Ok(admin) => admin,
        Err(error) => return vec![Finding::not_checked(CHECK, &error.to_string())],
    };
    let mut findings = Vec::new();
    for topic in topics {
        findings.push(topic_of(&admin, &topic, retention).await);
    }
    findings
}

async fn topic_of(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
    retention: Duration,
) -> Finding {
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let topics = [ResourceSpecifier::Topic(topic)];
    let asked = admin.describe_configs(&topics, &options);
    let answer = match asked.await {
        Ok(answers) => answers.into_iter().next(),
        Err(error) => return unreachable(topic, &error.to_string()),
    };
    let entries = match answer {
        // A topic that is there has settings; the client hands the error over as none.
        Some(Ok(resource)) if !resource.entries.is_empty() => resource.entries,
        Some(Ok(_) | Err(_)) => {
            return Finding::error(
                CHECK,
                format!("{topic}: there is no such topic, or this user may not see it"),
                "create the topic, or give the relay's user the right to describe it",
            );
        }
        None => return unreachable(topic, "no answer"),
    };
    let value = entries.iter().find(|entry| entry.name == "retention.ms");
    let value = value.and_then(|entry| entry.value.as_deref()?.parse::<i64>().ok());
    super::outlives(
        CHECK,
        topic,
        value.map(|millis| u64::try_from(millis).ok().map(Duration::from_millis)),
        retention,
    )
}

fn unreachable(topic: &str, why: &str) -> Finding {
    Finding::error(
        CHECK,
        format!("{topic}: the brokers do not answer: {why}"),
        "events wait in the outbox until they do; check `brokers` and `settings`",
    )
}
