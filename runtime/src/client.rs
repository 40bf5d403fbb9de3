//! The client's side: one `Idempotency-Key` across all tries of a request, as a layer of [`reqwest_middleware`].
//!
//! ```
//! use effectively::client::IdempotentRetries;
//! use reqwest_middleware::ClientBuilder;
//! use std::time::Duration;
//!
//! # async fn pay() -> Result<(), Box<dyn std::error::Error>> {
//! let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?; // for each try
//! let client = ClientBuilder::new(http).with(IdempotentRetries::new()).build();
//! let answer = client.post("https://shop.example/payments").body("amount=100").send().await?;
//! # Ok(())
//! # }
//! ```

use std::{
    hash::{BuildHasher, RandomState},
    pin::Pin,
    time::{Duration, Instant},
};

use http::{
    Extensions, HeaderName, HeaderValue, Method,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use reqwest::{Request, Response, ResponseBuilderExt};
use reqwest_middleware::{Error, Middleware, Next, Result};
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::error::ErrorKind;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// No problem document of ours is near it.
const PROBLEM_BYTES: u64 = 16 * 1024;

/// Sends POST and PATCH with an `Idempotency-Key`, and again with the same key while the outcome is open.
///
/// The key is the caller's, who sets the header (an RFC 8941 string, in double quotes), or else a new UUID. A caller that may
/// be restarted sets its own, stored with what it wants to do: only then does a retry after the restart find the first answer.
/// Requests of other methods are retried if they have the header, and pass untouched otherwise.
///
/// | | |
/// |---|---|
/// | sent again | no connection, a broken one, a timeout; 425, 429, 502, 503, 504; 409 with `Retry-After`; a problem with the code `idempotency_key_in_flight` |
/// | final | everything else: success, 422, 500 |
/// | the pause | `Retry-After` in seconds; without it, or with a date in it, a random one that grows |
///
/// When the tries or the time are used up, the last answer or error is the caller's. So is a `Retry-After` that reaches beyond
/// the time, at once. A body that cannot be cloned (a stream) is sent once, with the key.
///
/// The value of the header is marked sensitive, and no error holds it.
#[derive(Debug, Clone, Copy)]
#[must_use = "give it to `reqwest_middleware::ClientBuilder::with`"]
pub struct IdempotentRetries {
    max_tries: u32,
    total_time: Duration,
    first_pause: Duration,
    longest_pause: Duration,
}

/// No answer came within [`IdempotentRetries::total_time`].
///
/// It is the error inside of [`reqwest_middleware::Error::Middleware`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer came in time; it is unknown whether the request was carried out")]
pub struct TimedOut;

impl Default for IdempotentRetries {
    fn default() -> Self {
        Self {
            max_tries: 5,
            total_time: Duration::from_secs(60),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(10),
        }
    }
}

impl IdempotentRetries {
    /// With the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How often a request is sent at most, the first time included. 0 counts as 1. Default: 5.
    pub fn max_tries(self, max_tries: u32) -> Self {
        Self { max_tries, ..self }
    }

    /// The bound on all tries and pauses together, up to the head of the answer. A try that is under way at its end is given up
    /// with [`TimedOut`]. Default: 60 s.
    ///
    /// The time of one try is the HTTP client's: see [`reqwest::ClientBuilder::timeout`], which has no default.
    pub fn total_time(self, total_time: Duration) -> Self {
        Self { total_time, ..self }
    }

    /// The pause after the first try, and the longest. It doubles with each try, and a random part of it, up to a half, is left
    /// out. Default: 200 ms and 10 s.
    pub fn backoff(self, first: Duration, longest: Duration) -> Self {
        Self {
            first_pause: first,
            longest_pause: longest,
            ..self
        }
    }

    async fn send(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let began = Instant::now();
        let left = || self.total_time.saturating_sub(began.elapsed());
        let mut tries = 0;
        loop {
            tries += 1;
            let again = (tries < self.max_tries).then(|| request.try_clone());
            let one = async { judge(next.clone().run(request, extensions).await).await };
            let judged = timeout(left(), one).await;
            let (answer, verdict) = judged.map_err(|_| Error::middleware(TimedOut))?;
            let pause = match verdict {
                Verdict::Final => return answer,
                Verdict::Retry { after } => after.unwrap_or_else(|| self.pause(tries)),
            };
            match again.flatten() {
                Some(again) if pause < left() => request = again,
                _ => return answer,
            }
            drop(answer);
            tracing::debug!(
                tries,
                ?pause,
                "a request with an idempotency key is sent again"
            );
            sleep(pause).await;
        }
    }

    fn pause(&self, tries: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(tries.saturating_sub(1));
        let full = self
            .first_pause
            .saturating_mul(doubled)
            .min(self.longest_pause);
        // The standard library seeds every hasher at random: enough for jitter.
        let random = RandomState::new().hash_one(0) as u32;
        full - full.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
    }
}

// By hand what `async_trait` writes.
impl Middleware for IdempotentRetries {
    fn handle<'client, 'extensions, 'next, 'all>(
        &'client self,
        mut request: Request,
        extensions: &'extensions mut Extensions,
        next: Next<'next>,
    ) -> Pin<Box<dyn Future<Output = Result<Response>> + Send + 'all>>
    where
        'client: 'all,
        'extensions: 'all,
        'next: 'all,
        Self: 'all,
    {
        Box::pin(async move {
            if with_key(&mut request)? {
                self.send(request, extensions, next).await
            } else {
                next.run(request, extensions).await
            }
        })
    }
}

/// Whether the request has a key now, the caller's or a new one.
fn with_key(request: &mut Request) -> Result<bool> {
    let headers = request.headers();
    if !headers.contains_key(KEY) {
        if !matches!(*request.method(), Method::POST | Method::PATCH) {
            return Ok(false);
        }
        let key = HeaderValue::try_from(format!("\"{}\"", Uuid::new_v4()));
        let key = key.map_err(Error::middleware)?;
        request.headers_mut().insert(KEY, key);
    }
    for (name, value) in request.headers_mut() {
        if name == KEY {
            value.set_sensitive(true);
        }
    }
    Ok(true)
}

enum Verdict {
    Final,
    Retry { after: Option<Duration> },
}

async fn judge(answer: Result<Response>) -> (Result<Response>, Verdict) {
    match answer {
        Ok(response) => match response.status().as_u16() {
            425 | 429 | 502..=504 => retry(response),
            409 if response.headers().contains_key(RETRY_AFTER) => retry(response),
            // A server may choose another status than 409 for it.
            400..=499 if is_short_problem(&response) => match read(response).await {
                Ok((response, true)) => retry(response),
                Ok((response, false)) => (Ok(response), Verdict::Final),
                Err(error) => (Err(error.into()), Verdict::Retry { after: None }),
            },
            _ => (Ok(response), Verdict::Final),
        },
        Err(error) if error.is_timeout() || error.is_connect() || error.is_request() => {
            (Err(error), Verdict::Retry { after: None })
        }
        Err(error) => (Err(error), Verdict::Final),
    }
}

fn retry(response: Response) -> (Result<Response>, Verdict) {
    let after = response.headers().get(RETRY_AFTER);
    let seconds = after.and_then(|after| after.to_str().ok()?.trim().parse().ok());
    let after = seconds.map(Duration::from_secs);
    (Ok(response), Verdict::Retry { after })
}

fn is_short_problem(response: &Response) -> bool {
    let media_type = response.headers().get(CONTENT_TYPE);
    media_type.is_some_and(|found| found.as_bytes().starts_with(b"application/problem+json"))
        && response
            .content_length()
            .is_some_and(|bytes| bytes <= PROBLEM_BYTES)
}

/// Whether the problem is that the first request is still running. Reading takes the response apart: it is put together again.
async fn read(response: Response) -> reqwest::Result<(Response, bool)> {
    #[derive(Deserialize)]
    struct Problem {
        code: String,
    }

    let url = response.url().clone();
    let (mut head, body) = http::Response::from(response).into_parts();
    let body = Response::from(http::Response::new(body)).bytes().await?;
    let in_flight = crate::error::Error::from(ErrorKind::InFlight).code();
    let is_in_flight =
        serde_json::from_slice(&body).is_ok_and(|Problem { code }| code == in_flight);
    if let Ok(with_url) = http::Response::builder().url(url).body(()) {
        head.extensions.extend(with_url.into_parts().0.extensions);
    }
    Ok((http::Response::from_parts(head, body).into(), is_in_flight))
}
