//! A sink that calls a function of the application: for payment APIs, mail, and whatever else is outside the database.

use std::{borrow::Cow, fmt, future::poll_fn, sync::Arc, task::Poll, time::Duration};

use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{Boxed, Delivery, Sink};
use crate::model::{Envelope, limits::LONGEST_TIMEOUT};

/// Calls an async function for each event, after the commit of the call that emitted it.
///
/// This is where calls to the outside belong: inside a handler they cannot be rolled back, and would happen for a transaction
/// that never commits. The function runs **at least once**. A crash after the call and before the outbox knows of it, or a
/// timeout, calls it again with the same [`EffectKey`]: hand it on, so that the other side can recognise the repeat. A panic of
/// the function is not caught here.
///
/// ```
/// use effectively::sink::{Effect, EffectError, EffectKey};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct OrderPlaced {
///     order_id: i64,
///     amount: i64,
/// }
///
/// # #[derive(Clone)] struct Payments;
/// # enum ApiError { Declined, Network }
/// # impl Payments { async fn charge(&self, _: i64, _: i64, _key: &str) -> Result<(), ApiError> { Ok(()) } }
/// impl From<ApiError> for EffectError {
///     fn from(error: ApiError) -> Self {
///         match error {
///             ApiError::Declined => Self::fatal("the card was declined"),
///             ApiError::Network => Self::unavailable("the API cannot be reached"),
///         }
///     }
/// }
///
/// # let payments = Payments;
/// let charge = Effect::json(move |order: OrderPlaced, key: EffectKey| {
///     let payments = payments.clone();
///     async move { payments.charge(order.order_id, order.amount, key.as_str()).await }
/// });
/// ```
#[derive(Clone)]
pub struct Effect {
    call: Arc<dyn Fn(Envelope) -> Boxed<'static, Result<(), EffectError>> + Send + Sync>,
    concurrency: usize,
    timeout: Duration,
}

impl Effect {
    /// Calls the function with the event as it is in the outbox.
    ///
    /// ```
    /// use effectively::{Envelope, sink::{Effect, EffectError, EffectKey}};
    /// async fn notify(event: Envelope, key: EffectKey) -> Result<(), EffectError> {
    ///     println!("{key}: {} with {} bytes", event.name, event.data.len());
    ///     Ok(())
    /// }
    ///
    /// let sink = Effect::new(notify).concurrency(2);
    /// ```
    pub fn new<F, Fut, E>(call: F) -> Self
    where
        F: Fn(Envelope, EffectKey) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<EffectError>,
    {
        Self {
            call: Arc::new(move |event| {
                let (uuid, text) = (event.id, event.id.to_string());
                let key = EffectKey { uuid, text };
                let called = call(event, key);
                Box::pin(async move { called.await.map_err(Into::into) })
            }),
            concurrency: 8,
            timeout: Duration::from_secs(30),
        }
    }

    /// Calls the function with the event's data, read as JSON. Data that is no `T` is refused for good: a topic with events
    /// of several types needs [`new`](Self::new), or a `T` that is an enum.
    pub fn json<T, F, Fut, E>(call: F) -> Self
    where
        T: DeserializeOwned,
        F: Fn(T, EffectKey) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<EffectError>,
    {
        Self::new(move |event, key| {
            let data = serde_json::from_slice(&event.data).ok();
            let called = data.map(|data| call(data, key));
            async move {
                match called {
                    Some(called) => called.await.map_err(Into::into),
                    // Without serde's own words: they quote the data.
                    None => Err(EffectError::fatal("the data is of another type")),
                }
            }
        })
    }

    /// How many events of one batch are in the function at once; never two of one partition key. 0 counts as 1. Default: 8.
    #[must_use]
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = calls;
        self
    }

    /// How long one call may take, at most a day. Then it is dropped, and the event published again with the same key. Default: 30 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(LONGEST_TIMEOUT);
        self
    }

    async fn apply(&self, event: &Envelope) -> Delivery {
        // The function is called in here: it may begin its work before the first poll.
        let called = async { (self.call)(event.clone()).await };
        match tokio::time::timeout(self.timeout, called).await {
            Ok(Ok(())) => Delivery::Published,
            Ok(Err(EffectError(answer))) => answer,
            Err(_) => Delivery::timed_out(format!("no answer within {:?}", self.timeout)),
        }
    }
}

impl Sink for Effect {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let calls = batch
            .iter()
            .map(|event| Box::pin(self.apply(event)) as Boxed<'_, _>);
        at_most(self.concurrency, calls.collect()).await
    }
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effect")
            .field("concurrency", &self.concurrency)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The name of one effect, the same each time it is tried: the event's id.
///
/// It is what an API takes as idempotency key (Stripe's `Idempotency-Key`), or a mail as `Message-ID`. For two calls in one
/// function append a word to it, `format!("{key}-receipt")`: one key stands for one request.
///
/// The other side remembers keys for a while only (Stripe at least 24 hours). A dead letter that is revived after that is new
/// to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EffectKey {
    uuid: Uuid,
    text: String,
}

impl EffectKey {
    /// The text to send: 36 characters, lower case.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The event's id.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }
}

impl fmt::Display for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why an effect did not happen, and what that means for its event.
///
/// The reason is stored with the event and shown to operators: say what is wrong, and keep payloads and secrets out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectError(Delivery);

impl EffectError {
    /// Something is wrong with this event, and may pass: it is tried again after a while, in the end it becomes a dead letter.
    pub fn retry(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(Delivery::rejected(reason))
    }

    /// It will never work, for example because the card was declined: the event becomes a dead letter at once.
    pub fn fatal(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(Delivery::refused_for_good(reason))
    }

    /// The other side cannot be reached or did not answer: it is tried again, and no attempt is counted against the event.
    pub fn unavailable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(Delivery::unavailable(reason))
    }

    /// The other side did not answer for this event in time, see [`Delivery::timed_out`].
    pub fn timed_out(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(Delivery::timed_out(reason))
    }
}

impl fmt::Display for EffectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Delivery::Rejected(refused) => f.write_str(refused.reason()),
            Delivery::Unavailable(unavailable) => f.write_str(unavailable.reason()),
            Delivery::Published | Delivery::Held => Ok(()),
        }
    }
}

impl std::error::Error for EffectError {}

/// Makes the calls, at most so many at the same time, and gives their answers in the calls' order.
///
/// They run in this task: dropped with it they all end, and a panic in one is the caller's.
pub(super) async fn at_most(limit: usize, calls: Vec<Boxed<'_, Delivery>>) -> Vec<Delivery> {
    let mut answers = vec![Delivery::Held; calls.len()];
    let mut waiting = calls.into_iter().enumerate();
    let mut running: Vec<_> = waiting.by_ref().take(limit.max(1)).collect();
    poll_fn(|context| {
        let mut next = 0;
        while let Some((place, call)) = running.get_mut(next) {
            match call.as_mut().poll(context) {
                Poll::Pending => next += 1,
                Poll::Ready(answer) => {
                    answers[*place] = answer;
                    // What takes the place is polled in the next round of this loop.
                    match waiting.next() {
                        Some(call) => running[next] = call,
                        None => _ = running.swap_remove(next),
                    }
                }
            }
        }
        if running.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    answers
}
