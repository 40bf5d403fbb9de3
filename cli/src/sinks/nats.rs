//! `type = "nats"`

use std::time::Duration;

use async_nats::{Client, ConnectOptions, ServerAddr, connection::State, jetstream};
use effectively::sink::nats::Nats;
use serde::Deserialize;
use tokio::time::timeout;

use super::whole_topics;
use crate::{
    commands::doctor::Finding,
    config::{OneOrMore, Period, RouteConfig, SinkConfig},
    failure::Failure,
    output::span,
};

const CHECK: &str = "sink.nats";
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    servers: OneOrMore,
    /// Before each topic, with a dot.
    prefix: Option<String>,
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    /// The seed of an nkey.
    nkey: Option<String>,
    credentials_file: Option<String>,
    root_certificates: Option<String>,
    #[serde(default)]
    require_tls: bool,
    /// How long an acknowledgement is waited for.
    timeout: Option<Period>,
}

/// A client that connects when it can.
async fn client(sink: &SinkConfig<'_>, options: &Options) -> Result<Client, Failure> {
    let mut connect = ConnectOptions::new()
        .name("effectively")
        .retry_on_initial_connect();
    match (&options.user, &options.password) {
        (Some(user), Some(password)) => {
            connect = connect.user_and_password(user.clone(), password.clone());
        }
        (None, None) => {}
        _ => return Err(sink.wrong("`user` and `password` come together")),
    }
    if let Some(token) = &options.token {
        connect = connect.token(token.clone());
    }
    if let Some(seed) = &options.nkey {
        connect = connect.nkey(seed.clone());
    }
    if let Some(file) = &options.credentials_file {
        let read = connect.credentials_file(file).await;
        connect = read.map_err(|error| sink.wrong(format!("`credentials_file`: {error}")))?;
    }
    if let Some(file) = &options.root_certificates {
        connect = connect.add_root_certificates(file.into());
    }
    if options.require_tls {
        connect = connect.require_tls(true);
    }
    let mut servers = Vec::new();
    for server in options.servers.clone().into_vec() {
        let server = server.parse::<ServerAddr>();
        // The address itself may hold a password.
        servers.push(
            server
                .map_err(|_| sink.wrong("`servers` are addresses such as \"nats://host:4222\""))?,
        );
    }
    let client = connect.connect(servers).await;
    client.map_err(|error| sink.wrong(format!("no client for NATS can be made: {}", error.kind())))
}

pub(super) async fn sink(sink: &SinkConfig<'_>) -> Result<Nats, Failure> {
    let options: Options = sink.options()?;
    let client = client(sink, &options).await?;
    let mut context = jetstream::new(client.clone());
    if let Some(patience) = options.timeout {
        context = jetstream::ContextBuilder::new()
            .timeout(patience.0)
            .build(client);
    }
    let nats = Nats::new(context);
    Ok(match options.prefix {
        Some(prefix) => nats.prefix(prefix),
        None => nats,
    })
}

/// Whether each topic has a stream, how long that knows repeats, and whether claims outlive what is in it.
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
    let connected = async {
        while client.connection_state() != State::Connected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(PATIENCE, connected).await.is_err() {
        return vec![Finding::error(
            CHECK,
            "there is no connection to the servers",
            "events wait in the outbox until there is; check `servers` and the credentials",
        )];
    }
    let context = jetstream::new(client);
    let mut findings = Vec::new();
    for topic in topics {
        let subject = match &options.prefix {
            Some(prefix) => format!("{prefix}.{topic}"),
            None => topic.to_owned(),
        };
        findings.extend(stream_of(&context, &subject, retention).await);
    }
    findings
}

async fn stream_of(
    context: &jetstream::Context,
    subject: &str,
    retention: Duration,
) -> Vec<Finding> {
    const WINDOW: Duration = Duration::from_secs(60);
    let Ok(name) = context.stream_by_subject(subject).await else {
        return vec![Finding::error(
            CHECK,
            format!("no stream has the subject {subject}"),
            "create one: until then its events are refused and become dead letters",
        )];
    };
    let stream = match context.get_stream(&name).await {
        Ok(stream) => stream,
        Err(error) => {
            return vec![Finding::not_checked(
                CHECK,
                &format!("stream {name}: {error}"),
            )];
        }
    };
    let config = &stream.cached_info().config;
    let window = config.duplicate_window;
    let what = format!("stream {name} drops repeats for {}", span(window));
    let window = if window < WINDOW {
        Finding::warning(
            CHECK,
            what,
            "after a crash a relay's events are published again within the lease and its restart: make the duplicate window longer",
        )
    } else {
        Finding::ok(CHECK, what)
    };
    let kept = (!config.max_age.is_zero()).then_some(config.max_age);
    vec![
        window,
        super::outlives(CHECK, &format!("stream {name}"), Some(kept), retention),
    ]
}
