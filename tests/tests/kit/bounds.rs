//! Waiting ends, and giving up happens where it was asked for.

use std::cell::Cell;
use std::future::pending;
use std::time::{Duration, Instant};

use effectively_tests::{cancel_after, eventually, poll_times};
use tokio::task::yield_now;

const SHORT: Duration = Duration::from_millis(60);

#[tokio::test]
async fn eventually_returns_the_first_good_answer() {
    let asked = Cell::new(0);
    let value = eventually(Duration::from_secs(10), async || {
        asked.set(asked.get() + 1);
        if asked.get() < 4 {
            Err("not yet")
        } else {
            Ok(asked.get())
        }
    });
    assert_eq!(value.await, 4);
    assert_eq!(asked.get(), 4);
}

#[tokio::test]
#[should_panic(expected = "the last answer was: \"three orders left\"")]
async fn eventually_ends_with_the_last_answer() {
    eventually(SHORT, async || Err::<(), _>("three orders left")).await;
}

#[tokio::test]
#[should_panic(expected = "bounds.rs")]
async fn eventually_names_the_line_that_waited() {
    eventually(SHORT, async || false).await;
}

#[tokio::test]
#[should_panic(expected = "no answer at all")]
async fn eventually_is_bound_for_a_question_that_hangs() {
    eventually(SHORT, async || pending::<bool>().await).await;
}

#[tokio::test]
async fn a_future_is_dropped_at_the_chosen_poll() {
    let reached = Cell::new(0);
    let three_steps = async || {
        for step in 1..=3 {
            reached.set(step);
            yield_now().await;
        }
    };
    for (times, last_step, done) in [(0, 0, false), (1, 1, false), (3, 3, false), (4, 3, true)] {
        reached.set(0);
        assert_eq!(
            poll_times(times, three_steps()).await.is_some(),
            done,
            "{times} polls"
        );
        assert_eq!(reached.get(), last_step, "{times} polls");
    }
}

#[tokio::test]
async fn the_last_poll_is_not_waited_for() {
    let never = cancel_after(Duration::from_secs(10), poll_times(1, pending::<()>()));
    assert_eq!(never.await, Some(None));
}

#[tokio::test]
async fn a_future_is_dropped_after_the_chosen_time() {
    let begun = Instant::now();
    assert_eq!(cancel_after(SHORT, pending::<()>()).await, None);
    assert!(begun.elapsed() >= SHORT);
    assert_eq!(
        cancel_after(Duration::from_secs(10), async { 7 }).await,
        Some(7)
    );
}
