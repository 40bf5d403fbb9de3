//! From the `sink` table of a route to the sink. One file per broker: its options, its sink, and what the doctor asks it.

use std::{sync::Arc, time::Duration};

use effectively::{
    Envelope, Order, Route,
    sink::{Delivery, EventRef, Sink, Stdout, Unavailable},
};
use serde::Deserialize;

use crate::{
    commands::doctor::Finding,
    config::{Config, OrderOption, RouteConfig},
    failure::Failure,
};

#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqs")]
mod sqs;
#[cfg(feature = "webhook")]
mod webhook;

/// Topics, and where they go.
pub(crate) type Routes = Vec<(String, Route)>;

const TYPES: [&str; 9] = [
    "stdout",
    "kafka",
    "kafka-transactional",
    "nats",
    "rabbitmq",
    "redis",
    "sqs",
    "mqtt",
    "webhook",
];

/// All routes of a configuration. Connects to nothing yet.
pub(crate) async fn routes(config: &Config<'_>) -> Result<Routes, Failure> {
    let mut routes = Vec::new();
    for route in &config.routes {
        routes.extend(routes_of(route).await?);
    }
    #[cfg(feature = "kafka")]
    kafka::one_prefix_each(config)?;
    Ok(routes)
}

async fn routes_of(route: &RouteConfig<'_>) -> Result<Routes, Failure> {
    let sink = &route.sink;
    match sink.kind.as_str() {
        "stdout" => {
            sink.options::<NoOptions>()?;
            Ok(to(route, Stdout::new()))
        }
        #[cfg(feature = "kafka")]
        "kafka" => Ok(to(route, kafka::idempotent(sink)?)),
        #[cfg(feature = "kafka")]
        "kafka-transactional" => Ok(to(route, kafka::transactional(route)?)),
        #[cfg(feature = "mqtt")]
        "mqtt" => Ok(to(route, mqtt::sink(sink)?)),
        #[cfg(feature = "nats")]
        "nats" => Ok(to(route, nats::sink(sink).await?)),
        #[cfg(feature = "rabbitmq")]
        "rabbitmq" => Ok(to(route, rabbitmq::sink(sink)?)),
        #[cfg(feature = "redis")]
        "redis" => Ok(to(route, redis::sink(sink)?)),
        #[cfg(feature = "sqs")]
        "sqs" => Ok(to(route, sqs::sink(sink).await?)),
        #[cfg(feature = "webhook")]
        "webhook" => Ok(to(route, webhook::sink(sink)?)),
        known if TYPES.contains(&known) => Err(sink.source.wrong(
            &sink.kind_place,
            format!("this program was built without `{known}`; build it with the feature of the broker's name"),
        )),
        _ => Err(sink.source.wrong(
            &sink.kind_place,
            format!("there is no such type of sink; it is one of {}", TYPES.join(", ")),
        )),
    }
}

/// What the doctor finds out about the broker of a route. `retention`: how long its consumers keep their claims.
pub(crate) async fn examine(route: &RouteConfig<'_>, retention: Duration) -> Vec<Finding> {
    let _ = retention;
    match route.sink.kind.as_str() {
        #[cfg(feature = "kafka")]
        "kafka" | "kafka-transactional" => kafka::examine(route, retention).await,
        #[cfg(feature = "nats")]
        "nats" => nats::examine(route, retention).await,
        #[cfg(feature = "sqs")]
        "sqs" => sqs::examine(route, retention).await,
        "stdout" => Vec::new(),
        kind => vec![Finding::not_checked(
            &format!("sink.{kind}"),
            &route.topics.join(", "),
        )],
    }
}

/// The topics that are written whole: only those can be looked for in a broker.
#[cfg(any(feature = "kafka", feature = "nats", feature = "sqs"))]
fn whole_topics<'r>(route: &'r RouteConfig<'_>) -> impl Iterator<Item = &'r str> {
    let topics = route.topics.iter().map(String::as_str);
    topics.filter(|topics| !topics.ends_with('*'))
}

/// Whether consumers keep their claims longer than the broker keeps events. `kept`: `None` is not known, `Some(None)` for ever.
#[cfg(any(feature = "kafka", feature = "nats", feature = "sqs"))]
fn outlives(
    check: &str,
    place: &str,
    kept: Option<Option<Duration>>,
    retention: Duration,
) -> Finding {
    use crate::output::span;
    const ADVICE: &str = "a consumer's claims must outlive what the broker can redeliver: give its handlers a longer `retention` and tell it with --retention, or let the broker keep less";
    let claims = span(retention);
    match kept {
        None => Finding::not_checked(check, &format!("{place}: how long it keeps events")),
        Some(Some(kept)) if kept <= retention => Finding::ok(
            check,
            format!(
                "{place} keeps events for {}, claims are kept for {claims}",
                span(kept)
            ),
        ),
        Some(Some(kept)) => Finding::warning(
            check,
            format!(
                "{place} keeps events for {}, claims are kept for {claims} only",
                span(kept)
            ),
            ADVICE,
        ),
        Some(None) => Finding::warning(
            check,
            format!("{place} keeps events without an end, claims are kept for {claims}"),
            ADVICE,
        ),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoOptions {}

/// One sink for all topics of a route.
fn to<S: Sink>(route: &RouteConfig<'_>, sink: S) -> Routes {
    let sink = Arc::new(sink);
    let each = |topics: &String| {
        let mut made = Route::to(Shared(Arc::clone(&sink)));
        if let Some(order) = route.options.order {
            made = made.order(match order {
                OrderOption::Block => Order::Block,
                OrderOption::Skip => Order::Skip,
            });
        }
        if let Some(attempts) = route.options.attempts {
            made = made.attempts(attempts);
        }
        if let Some([first, longest]) = route.options.backoff {
            made = made.backoff(first.0, longest.0);
        }
        (topics.clone(), made)
    };
    route.topics.iter().map(each).collect()
}

struct Shared<S>(Arc<S>);

impl<S: Sink> Sink for Shared<S> {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        self.0.publish(batch).await
    }

    fn keeps_order(&self) -> bool {
        self.0.keeps_order()
    }

    async fn assigned(&self, partition: u16) -> Result<Vec<i64>, Unavailable> {
        self.0.assigned(partition).await
    }

    async fn published(&self, partition: u16) -> Result<Vec<EventRef>, Unavailable> {
        self.0.published(partition).await
    }

    async fn revoked(&self, partition: u16) {
        self.0.revoked(partition).await;
    }
}
