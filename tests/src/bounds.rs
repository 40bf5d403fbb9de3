//! Waiting with a bound, and giving up at a chosen point.
//!
//! A bare sleep in a test is either too short on a busy machine or too long on every other one.

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Between two looks; grows, so that a long wait does not become the load that it waits for.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What a question of [`eventually`] may come back with.
pub trait Answer {
    /// What the caller gets once the answer is there.
    type Value;
    /// The value, or in words what is still missing.
    fn settled(self) -> Result<Self::Value, String>;
}

impl Answer for bool {
    type Value = ();
    fn settled(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".into()) }
    }
}

impl<T> Answer for Option<T> {
    type Value = T;
    fn settled(self) -> Result<T, String> {
        self.ok_or_else(|| "None".into())
    }
}

impl<T, E: Debug> Answer for Result<T, E> {
    type Value = T;
    fn settled(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:?}"))
    }
}

/// Asks until the answer is `true`, `Some` or `Ok`. Panics at the caller's line, with the last answer, when `bound` has passed.
///
/// The bound also holds for a question that never comes back.
#[track_caller]
pub fn eventually<A: Answer>(
    bound: Duration,
    mut question: impl AsyncFnMut() -> A,
) -> impl Future<Output = A::Value> {
    let asked_at = Location::caller();
    async move {
        let end = Instant::now() + bound;
        let mut pause = FIRST_PAUSE;
        let mut last = "no answer at all".to_owned();
        while let Ok(answer) = timeout_at(end, question()).await {
            match answer.settled() {
                Ok(value) => return value,
                Err(missing) => last = missing,
            }
            if Instant::now() >= end {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        panic!("{asked_at}: still not so after {bound:?}; the last answer was: {last}");
    }
}

/// Runs the future for at most `after`, then drops it where it stands. `None`: it was dropped.
pub async fn cancel_after<F: Future>(after: Duration, future: F) -> Option<F::Output> {
    timeout(after, future).await.ok()
}

/// Polls the future at most `times`, each time it asks to be polled, then drops it. `None`: it was dropped.
///
/// Counts, not time: `for n in 1..` meets every await point of the future once, on any machine.
pub async fn poll_times<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
