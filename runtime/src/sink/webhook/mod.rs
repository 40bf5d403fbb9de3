//! Webhooks: each event is a POST to a receiver, signed as [Standard Webhooks](https://www.standardwebhooks.com) says.
//!
//! The crate of the HTTP client is reqwest 0.13, and TLS is the application's choice: name `reqwest` in your own `Cargo.toml`
//! with its default features or another backend. Without one no `https` address can be reached.
//!
//! # What is sent
//! The event's data as it is (`application/json`), with
//! * `webhook-id`, the event's id, the same on every attempt; `webhook-timestamp`, in seconds since 1970, and
//!   `webhook-signature`, both fresh on every attempt;
//! * `Idempotency-Key`, the event's id as an RFC 8941 string;
//! * the attributes of CloudEvents in binary mode (`ce-type`, …), percent-encoded as its HTTP binding says;
//! * the event's own headers, but for those above and those of the connection and of credentials, which are left out.
//!
//! # What an answer means
//!
//! | the receiver | the event |
//! |---|---|
//! | 2xx | is published |
//! | 429, 502 to 599; no connection, a broken one; a name with an internal address | [unavailable](Delivery::Unavailable): nothing is counted against the event |
//! | no answer in time | [timed out](Delivery::timed_out): the same, unless this event alone is not answered |
//! | 410, 413 | is refused for good: the receiver is gone (end its route), or never takes so much |
//! | 500, 501 | is rejected: mostly the receiver fails at this event, which must not stop all others |
//! | 408, 409, 425 | is rejected: the same id is at work there, or soon can be |
//! | every other 4xx | is rejected: a deployment or new rights may mend it |
//! | 3xx | is rejected: redirects are never followed, they would lead around the policy |
//!
//! A `Retry-After` in seconds with 429 or 503 is followed, up to five minutes; one that is a date is not.
//!
//! A header whose name HTTP does not allow or whose value is not printable ASCII, and data that is not UTF-8, are refused for good. No body of an answer
//! is read.
//!
//! # Where it may go
//! A URL of a customer must not reach the inside of your network. Only `https` is taken, without user name or password, and
//! only to addresses on the public internet. It is the addresses connected to that are checked, on every resolution, so that a
//! name that changes its mind gains nothing. Proxies and redirects are off. [`WebhookBuilder::allow_http`] and
//! [`WebhookBuilder::allow_internal`] lift it for receivers of your own. A network that translates from IPv6 with a prefix of
//! its own (NAT64, RFC 6052) needs a firewall as well.
//!
//! # The receiver
//! It verifies the raw body, and is idempotent on `webhook-id`: that is signed, `Idempotency-Key` is not. A repeat is answered
//! with the recorded 2xx.
//!
//! ```
//! # #[cfg(all(feature = "axum", feature = "postgres"))]
//! # mod receiver {
//! use axum::{body::Bytes, extract::{FromRef, FromRequest, Request}, http::StatusCode};
//! use effectively::{Ledger, idempotent};
//! use sqlx::{PgConnection, Postgres};
//! use standardwebhooks::Webhook;
//! use std::sync::Arc;
//!
//! #[derive(Clone)]
//! struct App {
//!     ledger: Ledger<Postgres>,
//!     secret: Arc<Webhook>, // Webhook::new("whsec_…")?
//! }
//! # impl FromRef<App> for Ledger<Postgres> { fn from_ref(app: &App) -> Self { app.ledger.clone() } }
//!
//! struct Delivered {
//!     id: String,
//!     body: Bytes,
//! }
//!
//! impl FromRequest<App> for Delivered {
//!     type Rejection = StatusCode;
//!
//!     async fn from_request(request: Request, app: &App) -> Result<Self, StatusCode> {
//!         let headers = request.headers().clone();
//!         let body = Bytes::from_request(request, app).await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
//!         app.secret.verify(&body, &headers).map_err(|_| StatusCode::UNAUTHORIZED)?;
//!         let id = headers["webhook-id"].to_str().map_err(|_| StatusCode::BAD_REQUEST)?;
//!         Ok(Self { id: id.to_owned(), body })
//!     }
//! }
//!
//! #[idempotent(key = "{event.id}")]
//! async fn receive(tx: &mut PgConnection, event: Delivered) -> Result<StatusCode, StatusCode> {
//!     sqlx::query("insert into orders (body) values ($1)").bind(&event.body[..]).execute(&mut *tx).await
//!         .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
//!     Ok(StatusCode::NO_CONTENT)
//! }
//! # fn app(app: App) -> axum::Router { axum::Router::new().route("/hooks", axum::routing::post(receive)).with_state(app) }
//! # }
//! ```

use std::{
    error::Error,
    fmt,
    time::{Duration, SystemTime},
};

use reqwest::{Client, Response, StatusCode, Url, header::RETRY_AFTER};

use super::{Boxed, Delivery, Sink, Unavailable, effect::at_most};
use crate::model::Envelope;

mod builder;
mod head;
mod policy;

pub use self::{
    builder::{InvalidWebhook, WebhookBuilder},
    head::Secret,
};

/// Posts events to one receiver. Routes of the relay choose by topic which receiver gets what.
///
/// ```no_run
/// use effectively::sink::webhook::{Secret, Webhook};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let secret = Secret::new(&std::env::var("WEBHOOK_SECRET")?)?;
/// let sink = Webhook::new("https://shop.example/hooks", secret)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Webhook {
    url: Url,
    secrets: Vec<Secret>,
    client: Client,
    concurrency: usize,
    timeout: Duration,
}

impl Webhook {
    /// With the defaults.
    ///
    /// # Errors
    /// [`InvalidWebhook`]: the URL is not allowed.
    pub fn new(url: &str, secret: Secret) -> Result<Self, InvalidWebhook> {
        Self::builder(url, secret).build()
    }

    /// With options.
    pub fn builder(url: &str, secret: Secret) -> WebhookBuilder {
        WebhookBuilder::new(url, secret)
    }

    async fn post(&self, event: &Envelope) -> Delivery {
        let head = match head::head(event, &self.secrets, now()) {
            Ok(head) => head,
            Err(unfit) => return Delivery::refused_for_good(unfit),
        };
        let request = self.client.post(self.url.clone()).timeout(self.timeout);
        // The response is dropped: what a stranger writes into it is not read.
        match request.headers(head).body(event.data.clone()).send().await {
            Ok(response) => judge(response.status(), retry_after(&response)),
            Err(error) if error.is_timeout() && !error.is_connect() => {
                Delivery::timed_out(format!("no answer within {:?}", self.timeout))
            }
            Err(error) => Delivery::unavailable(cause(&error)),
        }
    }
}

impl Sink for Webhook {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let mut posts: Vec<Boxed<'_, Delivery>> = Vec::with_capacity(batch.len());
        for event in batch {
            posts.push(Box::pin(self.post(event)));
        }
        at_most(self.concurrency, posts).await
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("host", &self.url.host_str())
            .field("concurrency", &self.concurrency)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The innermost error alone: those around it name the URL, whose path may be a secret.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match cause.to_string() {
        text if text.ends_with("scheme is not http") => {
            "https needs a TLS feature of the crate `reqwest`".to_owned()
        }
        text if error.is_connect() => format!("no connection: {text}"),
        text => format!("no answer: {text}"),
    }
}

/// RFC 9110, 10.2.3, without its dates: the receiver's clock is not ours.
fn retry_after(response: &Response) -> Duration {
    let seconds = response.headers().get(RETRY_AFTER);
    let seconds = seconds.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// The table of the module's documentation.
fn judge(status: StatusCode, retry_after: Duration) -> Delivery {
    match status.as_u16() {
        200..=299 => Delivery::Published,
        410 => Delivery::refused_for_good("the receiver answers 410, it is gone"),
        413 => Delivery::refused_for_good("the receiver answers 413, the event is too large"),
        code @ (429 | 502..=599) => {
            let down = Unavailable::new(format!("the receiver answers {code}"));
            Delivery::Unavailable(match code {
                429 | 503 => down.for_at_least(retry_after),
                _ => down,
            })
        }
        code => Delivery::rejected(format!("the receiver answers {code}")),
    }
}

/// In seconds since 1970. Receivers refuse what is off by more than five minutes.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs().cast_signed())
}
