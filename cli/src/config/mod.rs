//! The configuration of a relay: a TOML file, every mistake with its place.

use std::{net::SocketAddr, ops::Range, time::Duration};

use serde::{Deserialize, Deserializer, de};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::failure::Failure;

mod environment;
mod source;

use environment::fill_in;
pub(crate) use source::Source;

/// What stands in the file. `'f` is the file's text.
#[derive(Debug)]
pub(crate) struct Config<'f> {
    pub(crate) source: &'f Source,
    pub(crate) database: DatabaseOptions,
    pub(crate) relay: RelayOptions,
    /// Where `[relay]` stands, or would.
    pub(crate) relay_place: Range<usize>,
    pub(crate) metrics: Option<Spanned<SocketAddr>>,
    pub(crate) routes: Vec<RouteConfig<'f>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    #[serde(default)]
    database: DatabaseOptions,
    relay: Option<Spanned<RelayOptions>>,
    metrics: Option<Spanned<SocketAddr>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatabaseOptions {
    pub(crate) url: Option<String>,
    pub(crate) pool: Option<u32>,
    pub(crate) schema: Option<String>,
    pub(crate) table_prefix: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RelayOptions {
    pub(crate) batch: Option<usize>,
    pub(crate) concurrency: Option<usize>,
    pub(crate) lease: Option<Period>,
    pub(crate) poll: Option<Period>,
    pub(crate) linger: Option<Period>,
    pub(crate) publish_timeout: Option<Period>,
    pub(crate) grace: Option<Period>,
    pub(crate) max_crashes: Option<u16>,
    pub(crate) keep_published: Option<Period>,
    pub(crate) source: Option<String>,
    #[serde(default)]
    pub(crate) notify: bool,
}

impl RelayOptions {
    /// As the library's own default.
    pub(crate) fn concurrency(&self) -> usize {
        self.concurrency.unwrap_or(4)
    }
}

/// One `[[route]]`.
#[derive(Debug)]
pub(crate) struct RouteConfig<'f> {
    pub(crate) topics: Vec<String>,
    pub(crate) topics_place: Range<usize>,
    pub(crate) options: RouteOptions,
    pub(crate) sink: SinkConfig<'f>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteOptions {
    topics: Spanned<OneOrMore>,
    pub(crate) order: Option<OrderOption>,
    pub(crate) attempts: Option<u16>,
    pub(crate) backoff: Option<[Period; 2]>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OrderOption {
    Block,
    Skip,
}

/// `"orders"` or `["orders", "mail.*"]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "text, or a list of text")]
pub(crate) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::More(texts) => texts,
        }
    }
}

/// The `sink` table of a route. Its options are read by the sink of its type.
#[derive(Debug)]
pub(crate) struct SinkConfig<'f> {
    pub(crate) source: &'f Source,
    pub(crate) kind: String,
    pub(crate) kind_place: Range<usize>,
    pub(crate) place: Range<usize>,
    options: DeTable<'f>,
}

impl SinkConfig<'_> {
    pub(crate) fn options<T: de::DeserializeOwned>(&self) -> Result<T, Failure> {
        let options = Spanned::new(self.place.clone(), self.options.clone());
        T::deserialize(toml::Deserializer::from(options))
            .map_err(|error| self.source.wrong_toml(&error, &self.place))
    }

    /// What is wrong with it as a whole.
    #[cfg(any(
        feature = "kafka",
        feature = "mqtt",
        feature = "nats",
        feature = "rabbitmq",
        feature = "redis",
        feature = "sqs",
        feature = "webhook"
    ))]
    pub(crate) fn wrong(&self, message: impl std::fmt::Display) -> Failure {
        self.source.wrong(&self.place, message)
    }
}

/// A duration with its unit: `"250ms"`, `"10s"`, `"5m"`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Period(pub(crate) Duration);

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const RIGHT: &str =
            "a duration is text with its unit, such as \"250ms\", \"10s\" or \"5m\"";
        let value = toml::Value::deserialize(deserializer)?;
        let period = value
            .as_str()
            .and_then(|text| humantime::parse_duration(text).ok());
        period.map(Self).ok_or_else(|| de::Error::custom(RIGHT))
    }
}

impl<'f> Config<'f> {
    pub(crate) fn parse(source: &'f Source) -> Result<Self, Failure> {
        let whole = 0..0;
        let document = DeTable::parse(&source.text);
        let document = document.map_err(|error| source.wrong_toml(&error, &whole))?;
        let span = document.span();
        let mut document = document.into_inner();
        for (_, value) in document.iter_mut() {
            fill_in(source, value)?;
        }
        let routes = match document.remove("route") {
            Some(routes) => routes_of(source, routes)?,
            None => Vec::new(),
        };
        let head = Head::deserialize(toml::Deserializer::from(Spanned::new(span, document)));
        let head = head.map_err(|error| source.wrong_toml(&error, &whole))?;
        if routes.is_empty() {
            return Err(source.wrong(&whole, "a relay needs at least one [[route]]"));
        }
        let relay_place = head.relay.as_ref().map_or(whole, Spanned::span);
        Ok(Self {
            source,
            database: head.database,
            relay: head.relay.map(Spanned::into_inner).unwrap_or_default(),
            relay_place,
            metrics: head.metrics,
            routes,
        })
    }
}

fn routes_of<'f>(
    source: &'f Source,
    routes: Spanned<DeValue<'f>>,
) -> Result<Vec<RouteConfig<'f>>, Failure> {
    let place = routes.span();
    let DeValue::Array(routes) = routes.into_inner() else {
        return Err(source.wrong(&place, "each route is a table of its own: [[route]]"));
    };
    let mut read: Vec<RouteConfig<'f>> = Vec::new();
    for route in routes {
        let route = route_of(source, route)?;
        for topics in &route.topics {
            if !is_pattern(topics) {
                return Err(source.wrong(
                    &route.topics_place,
                    "topics are a topic (\"orders\"), or the beginning of topics followed by one `*` at its end (\"mail.*\", \"*\")",
                ));
            }
            if read.iter().any(|other| other.topics.contains(topics)) {
                return Err(source.wrong(&route.topics_place, "another route has the same topics"));
            }
        }
        read.push(route);
    }
    Ok(read)
}

fn route_of<'f>(
    source: &'f Source,
    route: Spanned<DeValue<'f>>,
) -> Result<RouteConfig<'f>, Failure> {
    let place = route.span();
    let DeValue::Table(mut table) = route.into_inner() else {
        return Err(source.wrong(&place, "a route is a table: [[route]]"));
    };
    let sink = table.remove("sink").ok_or_else(|| {
        source.wrong(
            &place,
            "this route has no sink: add `sink = { type = \"…\" }`",
        )
    })?;
    let sink_place = sink.span();
    let DeValue::Table(mut sink) = sink.into_inner() else {
        return Err(source.wrong(&sink_place, "a sink is a table: `sink = { type = \"…\" }`"));
    };
    let kind = sink.remove("type").ok_or_else(|| {
        source.wrong(
            &sink_place,
            "this sink has no `type`, for example `type = \"stdout\"`",
        )
    })?;
    let kind_place = kind.span();
    let DeValue::String(kind) = kind.into_inner() else {
        return Err(source.wrong(&kind_place, "the type of a sink is text"));
    };
    let options =
        RouteOptions::deserialize(toml::Deserializer::from(Spanned::new(place.clone(), table)));
    let options = options.map_err(|error| source.wrong_toml(&error, &place))?;
    let topics_place = options.topics.span();
    let topics = options.topics.get_ref().clone().into_vec();
    if topics.is_empty() {
        return Err(source.wrong(&topics_place, "a route has at least one topic"));
    }
    Ok(RouteConfig {
        topics,
        topics_place,
        options,
        sink: SinkConfig {
            source,
            kind: kind.into_owned(),
            kind_place,
            place: sink_place,
            options: sink,
        },
    })
}

fn is_pattern(topics: &str) -> bool {
    let beginning = topics.strip_suffix('*').unwrap_or(topics);
    !topics.is_empty() && !beginning.contains('*')
}
