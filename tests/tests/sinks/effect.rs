//! The sink that calls a function, against the conformance suite, and what it promises beyond it.

// A test that cannot go on says why and stops.
#![allow(clippy::expect_used)]

use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use effectively::Envelope;
use effectively::sink::{Delivery, Effect, EffectError, EffectKey, Sink};
use effectively::testing::sink::{Received, Rig, events};
use effectively_tests::{cancel_after, eventually};
use futures_util::FutureExt;
use serde::Deserialize;
use tokio::sync::watch;

effectively::sink_conformance!(rig);

const LIMIT: usize = 1000;
const BOUND: Duration = Duration::from_secs(20);

async fn rig() -> Option<Called> {
    Some(Called::default())
}

/// What the function got, with its keys.
#[derive(Default, Clone)]
struct Called(Arc<Mutex<Vec<(Envelope, EffectKey)>>>);

impl Called {
    fn all(&self) -> Vec<(Envelope, EffectKey)> {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.clone()
    }

    fn push(&self, event: Envelope, key: EffectKey) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push((event, key));
    }
}

impl Rig for Called {
    type Sink = Effect;

    async fn sink(&mut self) -> Effect {
        let called = self.clone();
        Effect::new(move |event: Envelope, key: EffectKey| {
            let called = called.clone();
            async move {
                if event.data.len() > LIMIT {
                    return Err(EffectError::fatal("over 1,000 bytes"));
                }
                called.push(event, key);
                Ok(())
            }
        })
    }

    async fn topic(&mut self) -> String {
        "orders".to_owned()
    }

    async fn received(&mut self, topic: &str, _: usize) -> Vec<Received> {
        let all = self.all();
        let of_topic = all.iter().filter(|(event, _)| event.topic == topic);
        of_topic.map(|(event, _)| Received::from(event)).collect()
    }

    fn oversized(&mut self) -> Option<usize> {
        Some(LIMIT)
    }
}

#[tokio::test]
async fn the_key_is_the_events_id_each_time() {
    let mut called = Called::default();
    let sink = called.sink().await;
    let sent = events("orders", &[Some("ada"), Some("bob")]);
    for _ in 0..3 {
        sink.publish(&sent).await;
    }
    let all = called.all();
    assert_eq!(all.len(), 6);
    for (event, key) in all {
        assert_eq!(key.uuid(), event.id);
        assert_eq!(key.to_string(), event.id.to_string());
        assert_eq!(key.as_str(), key.to_string());
    }
}

#[tokio::test]
async fn what_the_error_says_is_the_answer() {
    enum Wrong {
        Busy,
        Declined,
        Down,
    }

    impl From<Wrong> for EffectError {
        fn from(wrong: Wrong) -> Self {
            match wrong {
                Wrong::Busy => Self::retry("busy"),
                Wrong::Declined => Self::fatal("declined"),
                Wrong::Down => Self::unavailable("down"),
            }
        }
    }

    let sink = Effect::new(|event: Envelope, _| async move {
        match event.partition_key.as_deref() {
            Some("busy") => Err(Wrong::Busy),
            Some("declined") => Err(Wrong::Declined),
            Some("down") => Err(Wrong::Down),
            _ => Ok(()),
        }
    });
    let keys = ["busy", "fine", "declined", "down"].map(Some);
    let answers = sink.publish(&events("orders", &keys)).await;
    let expected = [
        Delivery::rejected("busy"),
        Delivery::Published,
        Delivery::refused_for_good("declined"),
        Delivery::unavailable("down"),
    ];
    assert_eq!(answers, expected);
    assert_eq!(EffectError::from(Wrong::Busy).to_string(), "busy");
    assert_eq!(EffectError::from(Wrong::Down).to_string(), "down");
}

#[tokio::test]
async fn data_is_read_and_what_cannot_be_is_refused_for_good() {
    #[derive(Deserialize)]
    struct Numbered {
        number: u64,
    }

    let sum = Arc::new(AtomicUsize::new(0));
    let adding = Arc::clone(&sum);
    let sink = Effect::json(move |case: Numbered, _: EffectKey| {
        let sum = Arc::clone(&adding);
        async move {
            let number = usize::try_from(case.number).expect("a small number");
            sum.fetch_add(number, Ordering::SeqCst);
            Ok::<_, EffectError>(())
        }
    });
    let mut sent = events("orders", &[Some("ada"), Some("bob"), Some("eve")]);
    sent[1].data = br#"{"number":"top secret"}"#.to_vec();
    let answers = sink.publish(&sent).await;
    assert!(answers[0].is_published() && answers[2].is_published());
    assert!(
        matches!(&answers[1], Delivery::Rejected(refused) if refused.is_fatal()),
        "{answers:?}"
    );
    assert!(!format!("{answers:?}").contains("top secret"));
    assert_eq!(sum.load(Ordering::SeqCst), 1 + 3);
}

#[tokio::test]
async fn a_call_without_end_is_dropped_and_tried_again() {
    let sink = Effect::new(|event: Envelope, _| async move {
        if event.partition_key.as_deref() == Some("stuck") {
            pending::<()>().await;
        }
        Ok::<_, EffectError>(())
    });
    let sink = sink.timeout(Duration::from_millis(50));
    let answers = sink
        .publish(&events("orders", &[Some("stuck"), Some("ada")]))
        .await;
    assert!(
        matches!(answers[0], Delivery::Unavailable(_)),
        "{answers:?}"
    );
    assert!(answers[1].is_published());
}

#[tokio::test]
async fn calls_are_made_together_up_to_the_bound_and_answered_in_order() {
    for (bound, together) in [(3, 3), (0, 1), (100, 10)] {
        let (open, gate) = watch::channel(false);
        let active = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let (now, peak) = (Arc::clone(&active), Arc::clone(&most));
        let sink = Effect::new(move |event: Envelope, _| {
            let (now, peak, mut gate) = (Arc::clone(&now), Arc::clone(&peak), gate.clone());
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.wait_for(|open| *open)
                    .await
                    .expect("the test holds it");
                now.fetch_sub(1, Ordering::SeqCst);
                if event.data.starts_with(br#"{"number":7,"#) {
                    return Err(EffectError::retry("the seventh"));
                }
                Ok(())
            }
        });
        let sink = sink.concurrency(bound);
        let published =
            tokio::spawn(async move { sink.publish(&events("orders", &[None; 10])).await });
        eventually(BOUND, async || active.load(Ordering::SeqCst) == together).await;
        open.send_replace(true);
        let answers = published.await.expect("answers");
        assert_eq!(most.load(Ordering::SeqCst), together);
        for (place, answer) in answers.iter().enumerate() {
            assert_eq!(answer.is_published(), place != 6, "{answers:?}");
        }
        assert_eq!(answers.len(), 10);
    }
}

#[tokio::test]
async fn a_dropped_batch_drops_its_calls_and_a_panic_is_the_callers() {
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let sink = Effect::new(move |_, _| {
        let held = Arc::clone(&held);
        async move {
            let _held = held;
            pending::<Result<(), EffectError>>().await
        }
    });
    let batch = events("orders", &[None; 3]);
    let dropped = cancel_after(Duration::from_millis(20), sink.publish(&batch)).await;
    assert_eq!(dropped, None);
    // The test's and the function's own.
    assert_eq!(Arc::strong_count(&alive), 2);

    async fn burst(_: Envelope, _: EffectKey) -> Result<(), EffectError> {
        panic!("the function's own");
    }
    let sink = Effect::new(burst);
    let caught = AssertUnwindSafe(sink.publish(&batch)).catch_unwind().await;
    assert!(caught.is_err());
}
