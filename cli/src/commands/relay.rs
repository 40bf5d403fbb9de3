//! `effectively relay`

use std::sync::Once;

use effectively::{Dialect, Ledger, Relay, RelayBuilder};
use serde_json::json;
use tracing_subscriber::{EnvFilter, filter::Directive};

use crate::{
    args::{self, Args},
    config::{Config, Source},
    database::{self, At},
    failure::{End, Failure},
    output::{Output, count},
    sinks::{self, Routes},
};

pub(crate) async fn run(args: &Args, relay: &args::Relay) -> Result<End, Failure> {
    log();
    let source = Source::read(&relay.config)?;
    let config = Config::parse(&source)?;
    let routes = sinks::routes(&config).await?;
    let at = at(args, &config);
    let pool = pool(&config)?;
    if relay.check {
        let out = Output::new(args.json);
        let database = database::open(&at, pool)?;
        return database::on!(database, ledger => check(ledger, routes, &config, &out));
    }
    let database = database::connect(&at, pool).await?;
    let stop = Stop::new()?;
    metrics(&config)?;
    database::on!(database, ledger => publish(ledger, routes, &config, stop).await)
}

/// What stands in the file goes before the command line and the environment.
pub(crate) fn at(args: &Args, config: &Config<'_>) -> At {
    let (mut at, file) = (args.at(), &config.database);
    at.url = file.url.clone().or(at.url);
    at.schema = file.schema.clone().or(at.schema);
    at.table_prefix = file.table_prefix.clone().or(at.table_prefix);
    at.notify = config.relay.notify;
    at
}

/// One connection per batch, one for the leases, one to listen, one to spare.
pub(crate) fn pool(config: &Config<'_>) -> Result<u32, Failure> {
    match config.database.pool {
        Some(0) => Err(Failure::Usage(format!(
            "{}: [database]: a pool has at least 1 connection; the relay needs its concurrency and 3 more",
            config.source.name()
        ))),
        Some(pool) => Ok(pool),
        None => Ok(u32::try_from(config.relay.concurrency() + 3).unwrap_or(u32::MAX)),
    }
}

fn check<DB: Dialect>(
    ledger: Ledger<DB>,
    routes: Routes,
    config: &Config<'_>,
    out: &Output,
) -> Result<End, Failure> {
    let topics: Vec<_> = routes.iter().map(|(topics, _)| topics.clone()).collect();
    build(ledger, routes, config)?;
    let name = config.source.name();
    out.result(&json!({ "config": name, "topics": topics }), || {
        format!("{name} is fine: {}", topics.join(", "))
    })?;
    Ok(End::Fine)
}

fn build<DB: Dialect>(
    ledger: Ledger<DB>,
    routes: Routes,
    config: &Config<'_>,
) -> Result<Relay<DB>, Failure> {
    let relay = routes.into_iter().fold(
        configured(Relay::builder(ledger), config),
        |relay, (topics, route)| relay.route(topics, route),
    );
    relay.build().map_err(|error| {
        config
            .source
            .wrong(&config.relay_place, format!("[relay]: {error}"))
    })
}

fn configured<DB: Dialect>(mut relay: RelayBuilder<DB>, config: &Config<'_>) -> RelayBuilder<DB> {
    let options = &config.relay;
    macro_rules! set {
        ($($option:ident: $value:expr),*) => {$(
            if let Some($option) = &options.$option {
                relay = relay.$option($value);
            }
        )*};
    }
    set! {
        batch: *batch, concurrency: *concurrency, lease: lease.0, poll: poll.0, linger: linger.0,
        publish_timeout: publish_timeout.0, grace: grace.0, max_crashes: *max_crashes,
        keep_published: keep_published.0, source: source.as_str()
    }
    relay
}

async fn publish<DB: Dialect>(
    ledger: Ledger<DB>,
    routes: Routes,
    config: &Config<'_>,
    mut stop: Stop,
) -> Result<End, Failure> {
    let number = routes.len() as u64;
    let relay = build(ledger, routes, config)?;
    tracing::info!(
        "relaying {} of {}",
        count(number, "route"),
        config.source.name()
    );
    let (told, stopping) = tokio::sync::oneshot::channel::<()>();
    let mut running = std::pin::pin!(relay.run(async { _ = stopping.await }));
    tokio::select! {
        end = &mut running => end?,
        () = stop.signal() => {
            tracing::info!("ending in order; a second signal ends at once");
            drop(told);
            tokio::select! {
                end = running => end?,
                () = stop.signal() => return Err(Failure::Failed("ended at once: what was being published will be published again".to_owned())),
            }
        }
    }
    tracing::info!("ended");
    Ok(End::Fine)
}

/// SIGINT and SIGTERM.
struct Stop {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Stop {
    fn new() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn signal(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Stop {
    fn new() -> Result<Self, Failure> {
        Ok(Self {})
    }

    async fn signal(&mut self) {
        _ = tokio::signal::ctrl_c().await;
    }
}

/// Serves the metrics, if the configuration says so.
fn metrics(config: &Config<'_>) -> Result<(), Failure> {
    let Some(address) = &config.metrics else {
        return Ok(());
    };
    #[cfg(feature = "prometheus")]
    {
        let server = metrics_exporter_prometheus::PrometheusBuilder::new()
            .with_http_listener(*address.get_ref())
            .install();
        server.map_err(|error| {
            config.source.wrong(
                &address.span(),
                format!("the metrics cannot be served there: {error}"),
            )
        })
    }
    #[cfg(not(feature = "prometheus"))]
    Err(config.source.wrong(
        &address.span(),
        "this program was built without `prometheus`; build it with the feature of that name",
    ))
}

/// On stderr, at `info` unless `RUST_LOG` says otherwise.
fn log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut filter =
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        // lapin logs a message that no queue took with its body, sqlx slow statements with their text.
        for silent in ["lapin::returned_messages=off", "sqlx::query=off"] {
            if let Ok(directive) = silent.parse::<Directive>() {
                filter = filter.add_directive(directive);
            }
        }
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        // Another one cannot be there.
        let _ = subscriber
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init();
    });
}
