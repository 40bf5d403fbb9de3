//! `type = "sqs"`

use std::{collections::BTreeMap, time::Duration};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_sqs::{Client, config::Credentials, types::QueueAttributeName};
use effectively::sink::sqs::Sqs;
use serde::Deserialize;

use super::whole_topics;
use crate::{
    commands::doctor::Finding,
    config::{Period, RouteConfig, SinkConfig},
    failure::Failure,
};

const CHECK: &str = "sink.sqs";

/// Region and credentials come from the environment, a profile or the machine's role, as for every AWS tool.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    region: Option<String>,
    /// For a server of one's own.
    endpoint: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
    #[serde(default)]
    fifo: bool,
    /// Queue URLs by topic.
    #[serde(default)]
    queues: BTreeMap<String, String>,
    max_bytes: Option<usize>,
    timeout: Option<Period>,
}

async fn client(sink: &SinkConfig<'_>, options: &Options) -> Result<Client, Failure> {
    let address = options.endpoint.as_deref().unwrap_or("https:");
    crate::tls::needed_for(address).map_err(|message| sink.wrong(message))?;
    let mut loader =
        aws_config::defaults(BehaviorVersion::latest()).http_client(crate::tls::aws_client());
    if let Some(region) = &options.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &options.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    match (&options.access_key_id, &options.secret_access_key) {
        (Some(id), Some(secret)) => {
            let token = options.session_token.clone();
            let keys = Credentials::new(id, secret, token, None, "effectively");
            loader = loader.credentials_provider(keys);
        }
        (None, None) => {}
        _ => return Err(sink.wrong("`access_key_id` and `secret_access_key` come together")),
    }
    let loaded = loader.load().await;
    if loaded.region().is_none() {
        return Err(sink.wrong("no region: give `region`, or set AWS_REGION"));
    }
    Ok(Client::new(&loaded))
}

pub(super) async fn sink(sink: &SinkConfig<'_>) -> Result<Sqs, Failure> {
    let options: Options = sink.options()?;
    let client = client(sink, &options).await?;
    let mut sqs = Sqs::new(client);
    if options.fifo {
        sqs = sqs.fifo();
    }
    for (topic, url) in options.queues {
        sqs = sqs.queue(topic, url);
    }
    if let Some(bytes) = options.max_bytes {
        sqs = sqs.max_bytes(bytes);
    }
    if let Some(timeout) = options.timeout {
        sqs = sqs.timeout(timeout.0);
    }
    Ok(sqs)
}

/// Whether the queues are there, keep an order, and whether claims outlive what is in them.
pub(super) async fn examine(route: &RouteConfig<'_>, retention: Duration) -> Vec<Finding> {
    let Ok(options) = route.sink.options::<Options>() else {
        return Vec::new();
    };
    let topics: Vec<&str> = whole_topics(route).collect();
    if topics.is_empty() {
        return vec![Finding::not_checked(
            CHECK,
            "the topics are not written whole",
        )];
    }
    let Ok(client) = client(&route.sink, &options).await else {
        return vec![Finding::not_checked(CHECK, "no client can be made")];
    };
    let mut findings = Vec::new();
    for topic in topics {
        findings.extend(queue_of(&client, &options, topic, retention).await);
    }
    findings
}

async fn queue_of(
    client: &Client,
    options: &Options,
    topic: &str,
    retention: Duration,
) -> Vec<Finding> {
    let url = match options.queues.get(topic) {
        Some(url) => Some(url.clone()),
        None => {
            let suffix = if options.fifo { ".fifo" } else { "" };
            let name = format!("{}{suffix}", topic.replace('.', "-"));
            let found = client.get_queue_url().queue_name(name).send().await;
            found.ok().and_then(|found| found.queue_url)
        }
    };
    let attributes = match &url {
        Some(url) => {
            let asked = client.get_queue_attributes().queue_url(url);
            let asked = asked.attribute_names(QueueAttributeName::All).send().await;
            asked.ok().and_then(|answer| answer.attributes)
        }
        None => None,
    };
    let (Some(url), Some(attributes)) = (url, attributes) else {
        return vec![Finding::error(
            CHECK,
            format!("{topic}: its queue cannot be found"),
            "create it, name it in `queues`, and check region, credentials and rights",
        )];
    };
    let order = if url.ends_with(".fifo") {
        Finding::ok(CHECK, format!("{topic}: a FIFO queue"))
    } else {
        Finding::warning(
            CHECK,
            format!("{topic}: a standard queue"),
            "it keeps no order and knows no repeats; `fifo = true` and FIFO queues do, within five minutes",
        )
    };
    let kept = attributes.get(&QueueAttributeName::MessageRetentionPeriod);
    let kept = kept
        .and_then(|seconds| seconds.parse().ok())
        .map(Duration::from_secs);
    vec![
        order,
        super::outlives(CHECK, topic, kept.map(Some), retention),
    ]
}
