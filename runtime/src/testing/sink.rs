//! What every [`Sink`] must do, as tests against the real other side.
//!
//! Write a [`Rig`] that sets up the other side and reads it as a consumer does, and let [`sink_conformance!`](crate::sink_conformance)
//! make the tests:
//!
//! ```
//! use effectively::{Envelope, sink::Memory, testing::sink::{Received, Rig}};
//!
//! #[derive(Default)]
//! struct InMemory(Memory);
//!
//! impl Rig for InMemory {
//!     type Sink = Memory;
//!
//!     async fn sink(&mut self) -> Memory {
//!         self.0.clone()
//!     }
//!
//!     async fn topic(&mut self) -> String {
//!         "orders".into()
//!     }
//!
//!     async fn received(&mut self, topic: &str, _: usize) -> Vec<Received> {
//!         let of_topic = |event: &Envelope| event.topic == topic;
//!         self.0.published().iter().filter(|event| of_topic(event)).map(Received::from).collect()
//!     }
//! }
//!
//! async fn rig() -> Option<InMemory> {
//!     Some(InMemory::default())
//! }
//!
//! effectively::sink_conformance!(rig);
//! # fn main() {}
//! ```

use std::{collections::BTreeMap, future::Future, io::Write, time::Duration};

pub use super::events::events;
use crate::{
    model::Envelope,
    sink::{Delivery, Sink},
};

/// Makes one `#[test]` per case of the suite, from an `async fn() -> Option<impl Rig>`. `None`: the other side is not there;
/// the function has said so, and the case is skipped.
#[macro_export]
macro_rules! sink_conformance {
    ($rig:path) => {
        $crate::sink_conformance!(@cases $rig:
            headers_and_ids_round_trip,
            events_of_one_key_keep_their_order,
            what_is_sent_again_has_the_same_id,
            a_missing_topic_is_no_success,
            an_oversized_event_is_refused_for_good_and_others_go_on,
            a_refused_event_stops_no_other_key,
            a_connection_that_is_cut_loses_nothing,
            a_restart_in_the_middle_loses_nothing,
        );
    };
    (@cases $rig:path: $($case:ident,)+) => {
        $(
            #[test]
            fn $case() {
                $crate::testing::sink::run(async {
                    if let Some(rig) = $rig().await {
                        $crate::testing::sink::$case(rig).await;
                    }
                });
            }
        )+
    };
}

/// The other side of a sink, as the suite needs it. What a broker cannot do is `None` or `false`, and the case that asks says
/// SKIPPED.
pub trait Rig: Send {
    /// The sink under test.
    type Sink: Sink;

    /// The sink, as an application builds it. Called once for each rig.
    fn sink(&mut self) -> impl Future<Output = Self::Sink> + Send;

    /// A topic that no other test uses, ready to be published to.
    fn topic(&mut self) -> impl Future<Output = String> + Send;

    /// What a consumer gets from the topic, oldest first. Waits, with a bound, until it is at least so much.
    fn received(
        &mut self,
        topic: &str,
        at_least: usize,
    ) -> impl Future<Output = Vec<Received>> + Send;

    /// A topic that nobody has set up, so that what is published to it would be lost.
    fn missing_topic(&mut self) -> Option<String> {
        None
    }

    /// How many bytes of data are more than the other side takes.
    fn oversized(&mut self) -> Option<usize> {
        None
    }

    /// Breaks every connection between the sink and the other side within some milliseconds from now, while more is sent, and
    /// then lets new ones through. Returns at once, and whether it can do that.
    fn cut_soon(&mut self) -> bool {
        false
    }

    /// Ends the other side as hard as possible and starts it again with what it had stored. Returns when that is done, and
    /// whether it can do that.
    fn restart(&mut self) -> impl Future<Output = bool> + Send {
        async { false }
    }
}

/// An event as a consumer got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The event's id.
    pub id: String,
    /// The event's type.
    pub name: String,
    /// The partition key, where the other side carries it.
    pub key: Option<String>,
    /// The body.
    pub data: Vec<u8>,
    /// All headers, with the names that they have on the wire.
    pub headers: BTreeMap<String, String>,
}

impl From<&Envelope> for Received {
    fn from(event: &Envelope) -> Self {
        let attributes = event.attributes();
        let mut headers: BTreeMap<_, _> = attributes
            .map(|(name, value)| (name.to_owned(), value.into_owned()))
            .collect();
        headers.extend(event.headers.clone());
        Self {
            id: event.id.to_string(),
            name: event.name.clone(),
            key: event.partition_key.clone(),
            data: event.data.clone(),
            headers,
        }
    }
}

/// How long a case may take.
const BOUND: Duration = Duration::from_secs(120);
/// How long a sink may take to find its way back.
const RECOVERY: Duration = Duration::from_secs(60);

/// Runs one case with a runtime of its own and a bound.
///
/// # Panics
/// When the case fails or takes longer than two minutes.
pub fn run(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    let in_time = runtime.block_on(async { tokio::time::timeout(BOUND, case).await });
    runtime.shutdown_timeout(Duration::from_secs(1));
    assert!(in_time.is_ok(), "still running after {BOUND:?}");
}

/// Publishes one batch as the relay does: at most one event of a key at a time, unless the sink keeps the order itself.
async fn publish(sink: &impl Sink, batch: &[Envelope]) -> Vec<Delivery> {
    let answers = if sink.keeps_order() {
        sink.publish(batch).await
    } else {
        let mut answers = Vec::new();
        let mut stopped: Vec<&str> = Vec::new();
        for event in batch {
            let key = event.partition_key.as_deref();
            if key.is_some_and(|key| stopped.contains(&key)) {
                answers.push(Delivery::Held);
                continue;
            }
            let answer = sink.publish(std::slice::from_ref(event)).await;
            if !answer.iter().all(Delivery::is_published) {
                stopped.extend(key);
            }
            answers.extend(answer);
        }
        answers
    };
    assert_eq!(answers.len(), batch.len(), "one answer for each event");
    answers
}

/// Publishes until everything is, as the relay does after a failure.
async fn publish_all(sink: &impl Sink, mut batch: Vec<Envelope>) {
    let patience = tokio::time::Instant::now() + RECOVERY;
    while !batch.is_empty() {
        let answers = publish(sink, &batch).await;
        let mut next = answers.iter();
        batch.retain(|_| !next.next().is_some_and(Delivery::is_published));
        if !batch.is_empty() {
            assert!(
                tokio::time::Instant::now() < patience,
                "never published: {batch:?}\nthe last answers: {answers:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Id, type, key, data, headers and trace context arrive as they were sent.
pub async fn headers_and_ids_round_trip(mut rig: impl Rig) {
    let (sink, topic) = (rig.sink().await, rig.topic().await);
    let sent = events(&topic, &[Some("ada"), None]);
    for delivery in publish(&sink, &sent).await {
        assert_eq!(delivery, Delivery::Published);
    }
    let received = rig.received(&topic, sent.len()).await;
    assert_eq!(received.len(), sent.len(), "{received:?}");
    for event in &sent {
        let id = event.id.to_string();
        let got = received.iter().find(|got| got.id == id);
        let got = got.unwrap_or_else(|| panic!("{id} is not among {received:?}"));
        assert_eq!((&got.name, &got.data), (&event.name, &event.data));
        if event.partition_key.is_some() {
            assert_eq!(got.key, event.partition_key);
        }
        let has = |value: &str| got.headers.values().any(|there| there == value);
        for (name, value) in event.attributes() {
            assert!(has(&value), "{name} is not among {:?}", got.headers);
        }
        for (name, value) in &event.headers {
            assert_eq!(got.headers.get(name), Some(value), "{:?}", got.headers);
        }
    }
}

/// Of each key, what was sent first arrives first.
pub async fn events_of_one_key_keep_their_order(mut rig: impl Rig) {
    let (sink, topic) = (rig.sink().await, rig.topic().await);
    let keys: Vec<_> = ["ada", "bob", "eve"].iter().cycle().take(60).collect();
    let sent = events(
        &topic,
        &keys.iter().map(|key| Some(**key)).collect::<Vec<_>>(),
    );
    for batch in sent.chunks(20) {
        for delivery in publish(&sink, batch).await {
            assert_eq!(delivery, Delivery::Published);
        }
    }
    let received = rig.received(&topic, sent.len()).await;
    assert_in_order(&sent, &received);
}

/// What is published twice has the same id twice, or is there once.
pub async fn what_is_sent_again_has_the_same_id(mut rig: impl Rig) {
    let (sink, topic) = (rig.sink().await, rig.topic().await);
    let sent = events(&topic, &[Some("ada")]);
    for _ in 0..2 {
        assert_eq!(publish(&sink, &sent).await, [Delivery::Published]);
    }
    let received = rig.received(&topic, 1).await;
    assert!((1..=2).contains(&received.len()), "{received:?}");
    let id = sent[0].id.to_string();
    assert!(received.iter().all(|got| got.id == id), "{received:?}");
}

/// What nobody would receive is not published, and what has a receiver still is.
pub async fn a_missing_topic_is_no_success(mut rig: impl Rig) {
    let Some(missing) = rig.missing_topic() else {
        return skip("a_missing_topic_is_no_success", &rig, "missing_topic");
    };
    let (sink, topic) = (rig.sink().await, rig.topic().await);
    let lost = publish(&sink, &events(&missing, &[Some("ada")])).await;
    assert!(!lost[0].is_published(), "{lost:?}");
    publish_all(&sink, events(&topic, &[Some("ada")])).await;
    assert_eq!(rig.received(&topic, 1).await.len(), 1);
}

/// A too large event is refused for good, so that it becomes a dead letter, and holds up no other key.
pub async fn an_oversized_event_is_refused_for_good_and_others_go_on(mut rig: impl Rig) {
    let Some(bytes) = rig.oversized() else {
        let case = "an_oversized_event_is_refused_for_good_and_others_go_on";
        return skip(case, &rig, "oversized");
    };
    let (sink, topic) = (rig.sink().await, rig.topic().await);
    let mut sent = events(&topic, &[Some("ada"), Some("big"), Some("eve")]);
    sent[1].data = format!("\"{}\"", "x".repeat(bytes)).into_bytes();
    let answers = publish(&sink, &sent).await;
    assert!(
        matches!(&answers[1], Delivery::Rejected(rejected) if rejected.is_fatal()),
        "{answers:?}"
    );
    sent.remove(1);
    publish_all(&sink, sent.clone()).await;
    assert_in_order(&sent, &rig.received(&topic, sent.len()).await);
}

/// A refused event in the middle of a batch: other keys go on, and of its own key nothing passes it.
pub async fn a_refused_event_stops_no_other_key(mut rig: impl Rig) {
    let Some(bytes) = rig.oversized() else {
        return skip("a_refused_event_stops_no_other_key", &rig, "oversized");
    };
    let (sink, topic) = (rig.sink().await, rig.topic().await);
    let mut sent = events(
        &topic,
        &[Some("ada"), Some("ada"), Some("ada"), Some("eve")],
    );
    sent[1].data = format!("\"{}\"", "x".repeat(bytes)).into_bytes();
    if sink.keeps_order() {
        let answers = publish(&sink, &sent).await;
        assert!(!answers[1].is_published(), "{answers:?}");
        assert!(!answers[2].is_published(), "passed its key: {answers:?}");
    }
    let rest: Vec<_> = [0, 2, 3].map(|place| sent[place].clone()).into();
    publish_all(&sink, rest.clone()).await;
    assert_in_order(&rest, &rig.received(&topic, rest.len()).await);
}

/// Connections that break while events are on their way: nothing that was called published is missing.
pub async fn a_connection_that_is_cut_loses_nothing(mut rig: impl Rig) {
    let (sink, topic) = (rig.sink().await, rig.topic().await);
    let mut sent = Vec::new();
    for _ in 0..5 {
        if !rig.cut_soon() {
            return skip("a_connection_that_is_cut_loses_nothing", &rig, "cut_soon");
        }
        for _ in 0..20 {
            let batch = events(
                &topic,
                &[Some("ada"), Some("bob"), Some("eve"), Some("ada")],
            );
            publish_all(&sink, batch.clone()).await;
            sent.extend(batch);
        }
    }
    assert_in_order(&sent, &rig.received(&topic, sent.len()).await);
}

/// The other side is killed and started again: nothing that was called published is missing.
pub async fn a_restart_in_the_middle_loses_nothing(mut rig: impl Rig) {
    let (sink, topic) = (rig.sink().await, rig.topic().await);
    let before = events(&topic, &[Some("ada"), Some("bob"), Some("ada")]);
    publish_all(&sink, before.clone()).await;
    if !rig.restart().await {
        return skip("a_restart_in_the_middle_loses_nothing", &rig, "restart");
    }
    let after = events(&topic, &[Some("ada"), Some("bob")]);
    publish_all(&sink, after.clone()).await;
    let sent: Vec<_> = before.into_iter().chain(after).collect();
    assert_in_order(&sent, &rig.received(&topic, sent.len()).await);
}

/// A case that tests nothing must not read as one that passed. Past the harness, which shows no output of a test that ends well.
fn skip<R: Rig>(case: &str, _: &R, lacks: &str) {
    let (rig, mut out) = (std::any::type_name::<R>(), std::io::stderr().lock());
    let _ = writeln!(out, "SKIPPED {case}: {rig} has no `{lacks}`");
}

/// Everything is there, and the first copies of each key are in order. Further copies are allowed: at least once.
fn assert_in_order(sent: &[Envelope], received: &[Received]) {
    let mut firsts: Vec<&str> = Vec::new();
    for got in received {
        if !firsts.contains(&got.id.as_str()) {
            firsts.push(&got.id);
        }
    }
    let mut places: BTreeMap<&Option<String>, Vec<usize>> = BTreeMap::new();
    for event in sent {
        let id = event.id.to_string();
        let place = firsts.iter().position(|first| *first == id);
        let place = place.unwrap_or_else(|| panic!("{id} was called published and is missing"));
        places.entry(&event.partition_key).or_default().push(place);
    }
    for (key, places) in places {
        assert!(
            places.is_sorted(),
            "{key:?} arrived in the order {places:?}"
        );
    }
}
