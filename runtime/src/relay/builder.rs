//! What a relay can be told when it is built.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use super::{
    Relay, Settings, Shared,
    group::Group,
    partitions::Partitions,
    port::Port,
    retries::Retries,
    route::{Route, Routed},
    routes::Routes,
    suspects::Suspects,
};
use crate::{
    engine::Ledger,
    error::{Error, ErrorKind},
    model::{Pattern, limits},
    store::Dialect,
};

/// Builds a [`Relay`].
///
/// ```no_run
/// # #[cfg(feature = "postgres")]
/// # fn example(ledger: effectively::Ledger<sqlx::Postgres>) -> Result<(), effectively::Error> {
/// use std::time::Duration;
/// use effectively::{Order, Relay, Route, sink::{Memory, Stdout}};
///
/// let relay = Relay::builder(ledger)
///     .route("orders", Stdout::new())
///     .route("mail.*", Route::to(Memory::new()).order(Order::Skip).attempts(3))
///     .source("/shop")
///     .lease(Duration::from_secs(5))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct RelayBuilder<DB: Dialect> {
    ledger: Ledger<DB>,
    routes: Vec<(String, Route)>,
    settings: Settings,
}

impl<DB: Dialect> RelayBuilder<DB> {
    pub(super) fn new(ledger: Ledger<DB>) -> Self {
        Self {
            ledger,
            routes: Vec::new(),
            settings: Settings {
                batch: 500,
                concurrency: 4,
                lease: Duration::from_secs(10),
                poll: Duration::from_millis(250),
                linger: Duration::from_millis(5),
                publish_timeout: Duration::from_secs(30),
                grace: Duration::from_secs(10),
                max_crashes: 3,
                keep_published: None,
                source: "/effectively".into(),
            },
        }
    }

    /// Publishes the events of a topic to a sink, or to a [`Route`] with its own settings. A topic is written whole (`orders`)
    /// or as a beginning (`mail.*`, `*`); the most exact route takes an event. What no route takes stays in the outbox.
    pub fn route(mut self, topics: impl Into<String>, route: impl Into<Route>) -> Self {
        self.routes.push((topics.into(), route.into()));
        self
    }

    /// How many events are read, published and settled at once; 1 to 5,000. Default: 500.
    pub fn batch(mut self, events: usize) -> Self {
        self.settings.batch = events;
        self
    }

    /// How many batches may be on their way at the same time, each of other partitions. Default: 4.
    pub fn concurrency(mut self, batches: usize) -> Self {
        self.settings.concurrency = batches;
        self
    }

    /// How long a lease holds when it is not extended: after a relay has died, others take over its partitions after this
    /// time. 1 second to 1 hour. Default: 10 seconds.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// The longest pause between two looks at the outbox when nothing happens. Commits in this process wake the relay in any
    /// case. 1 millisecond to 1 hour. Default: 250 milliseconds.
    pub fn poll(mut self, longest: Duration) -> Self {
        self.settings.poll = longest;
        self
    }

    /// The shortest time between two reads that find less than a batch. Longer: larger batches, less work for the database, and
    /// later events. Default: 5 milliseconds. Where reads take longer than a quarter of it, because the machine is busy or the
    /// database far away, the time between them grows with them, up to 3 times this and to `poll`: the handlers need the machine more.
    pub fn linger(mut self, shortest: Duration) -> Self {
        self.settings.linger = shortest;
        self
    }

    /// How long a sink may take for what it was handed at once. Then each of these events is handed over alone, and one that is not
    /// answered alone either counts as an attempt, unless the sink answers for no other. 1 millisecond to 1 day. Default: 30 seconds. When a lease cannot be extended meanwhile,
    /// what stands on it is given up four fifths into its time.
    pub fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.settings.publish_timeout = timeout;
        self
    }

    /// How long the end waits for what is being published, at most 1 day. Default: 10 seconds.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// How often a relay may die while an event is the only one being published, before the event becomes a dead letter. After
    /// a relay has died, whoever takes its partitions over publishes one event at a time first. Only a death during
    /// [`publish`](crate::sink::Sink::publish) counts, and none while the event merely waits for its sink. Default: 3.
    pub fn max_crashes(mut self, crashes: u16) -> Self {
        self.settings.max_crashes = crashes;
        self
    }

    /// Keeps published events in the table `effectively_published` for so long, for audits and for looking back; 1 second to
    /// 3,650 days. By default they are deleted.
    ///
    /// The table is yours to read. [`Outbox::purge_published`](crate::Outbox::purge_published) deletes what has been kept long
    /// enough: call it every few minutes, or run `effectively purge`. Keeping costs a second write of each event.
    pub fn keep_published(mut self, retention: Duration) -> Self {
        self.settings.keep_published = Some(retention);
        self
    }

    /// Who emits the events: the `source` of CloudEvents, a URI reference such as `/shop/orders`. Default: `/effectively`.
    pub fn source(mut self, source: impl Into<Arc<str>>) -> Self {
        self.settings.source = source.into();
        self
    }

    /// The relay.
    ///
    /// # Errors
    /// [`ErrorKind::Settings`] without a route, with the same topics twice, or with a number out of its bounds.
    pub fn build(self) -> Result<Relay<DB>, Error> {
        let wrong = |message| Err(Error::from(ErrorKind::Settings(message)));
        if self.routes.is_empty() {
            return wrong("a relay needs at least one route");
        }
        if !(1..=5000).contains(&self.settings.batch) {
            return wrong("a batch is 1 to 5,000 events");
        }
        if !(1..=64).contains(&self.settings.concurrency) {
            return wrong("1 to 64 batches can be on their way at once");
        }
        self.settings.check_durations()?;
        let mut routes: Vec<Routed> = Vec::new();
        for (topics, route) in self.routes {
            let pattern = Pattern::new(&topics)?;
            if routes.iter().any(|routed| routed.pattern == pattern) {
                return wrong("two routes have the same topics");
            }
            if route.longest > limits::LONGEST_PAUSE {
                return wrong("a rejected event is tried again after at most 365 days");
            }
            routes.push(Routed::new(pattern, route));
        }
        let shared = Shared {
            port: Port::new(
                self.ledger,
                Group::of(&routes),
                self.settings.keep_published,
            ),
            routes: Routes::new(routes),
            partitions: Partitions::default(),
            retries: Retries::default(),
            suspects: Suspects::default(),
            settings: self.settings,
            changed: Arc::new(Notify::new()),
        };
        Ok(Relay {
            shared: Arc::new(shared),
        })
    }
}

impl Settings {
    /// Nothing that is added to a clock overflows.
    fn check_durations(&self) -> Result<(), Error> {
        let (milli, second) = (Duration::from_millis(1), Duration::from_secs(1));
        let years = Duration::from_secs(3650 * 24 * 3600);
        limits::within(
            (second..=limits::LONGEST_LEASE).contains(&self.lease),
            "a lease holds 1 second to 1 hour",
        )?;
        limits::within(
            (milli..=limits::LONGEST_LEASE).contains(&self.poll) && self.linger <= self.poll,
            "the longest pause is 1 millisecond to 1 hour and not below the shortest",
        )?;
        limits::within(
            (milli..=limits::LONGEST_TIMEOUT).contains(&self.publish_timeout),
            "a sink may take 1 millisecond to 1 day",
        )?;
        limits::within(
            self.grace <= limits::LONGEST_TIMEOUT,
            "the end waits for at most 1 day",
        )?;
        limits::within(
            self.keep_published
                .is_none_or(|retention| (second..=years).contains(&retention)),
            "published events are kept for 1 second to 3,650 days",
        )
    }
}
