//! What the five order servers share: the order, its database and the program around it. How a framework is used stands in
//! `axum_orders/main.rs` and its four siblings; this is the application that they have in common.
//!
//! Each server is started the same way, and several processes may share one database:
//!
//! ```sh
//! cargo run -p effectively-examples --bin axum_orders -- --listen 127.0.0.1:8080 --database-url sqlite:orders.db
//! ```
//!
//! | request | answer |
//! |---|---|
//! | `POST /orders` with `Authorization: Bearer <user>`, `Idempotency-Key` and `{"item": "tea", "quantity": 2}` | 201, `Location`, `{"order_id": 1, "item": "tea", "quantity": 2}`; the same for every repetition |
//! | … and `"delay_ms": 0..10000` | sleeps in the transaction |
//! | … and `"fail": "error"`, `"reject"` or `"panic"` | 500 and the key is free; 402, recorded; panics: 500 and the key is free |
//! | `GET /orders` with `Authorization` | the caller's orders, oldest first |
//! | `GET /events` | every event in the outbox, oldest first |
//! | `GET /healthz` | 200 |
//!
//! Without `Authorization` the answer is 401 before anything else. SIGTERM drains and ends with exit code 0.

use std::time::Duration;

use effectively::{Dialect, Event, Ledger, Recorded, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

mod program;
mod tables;

pub use program::{AnyLedger, Args, open, shutdown, start};
pub use tables::Orders;

/// What a customer asks for. A value that breaks a rule is refused while the body is read, before there is a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct PlaceOrder {
    /// What is ordered.
    pub item: String,
    /// How many, 1 to 1000.
    pub quantity: u16,
    /// How long the work takes, 0 to 10,000 milliseconds.
    pub delay_ms: u64,
    /// What goes wrong.
    pub fail: Option<Fail>,
}

/// How an order goes wrong when it is told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fail {
    /// In a way that a retry may mend.
    Error,
    /// For good.
    Reject,
    /// Badly.
    Panic,
}

#[derive(Deserialize)]
struct Unchecked {
    item: String,
    quantity: u16,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    fail: Option<Fail>,
}

impl TryFrom<Unchecked> for PlaceOrder {
    type Error = &'static str;

    fn try_from(order: Unchecked) -> Result<Self, &'static str> {
        Self::new(order.item, order.quantity, order.delay_ms, order.fail)
    }
}

impl PlaceOrder {
    /// An order that keeps the rules.
    ///
    /// # Errors
    /// Which rule is broken.
    pub fn new(
        item: String,
        quantity: u16,
        delay_ms: u64,
        fail: Option<Fail>,
    ) -> Result<Self, &'static str> {
        match (&*item, quantity, delay_ms) {
            (item, ..) if item.contains('\0') => Err("`item` must not hold NUL"),
            (_, 1..=1000, 0..=10_000) => Ok(Self {
                item,
                quantity,
                delay_ms,
                fail,
            }),
            (_, 1..=1000, _) => Err("`delay_ms` is 0 to 10000"),
            _ => Err("`quantity` is 1 to 1000"),
        }
    }

    /// The answer to it.
    pub fn receipt(self, order_id: i64) -> Receipt {
        Receipt {
            order_id,
            item: self.item,
            quantity: self.quantity,
        }
    }

    /// The slow and the unlucky part of the work.
    ///
    /// # Errors
    /// What the order was told to fail with.
    ///
    /// # Panics
    /// When the order was told to.
    pub async fn work(&self) -> Result<(), OrderError> {
        tokio::time::sleep(Duration::from_millis(self.delay_ms)).await;
        match self.fail {
            Some(Fail::Error) => Err(OrderError::Failed),
            Some(Fail::Reject) => Err(OrderError::PaymentRequired),
            Some(Fail::Panic) => panic!("the order was told to"),
            None => Ok(()),
        }
    }
}

/// The answer, a row of `GET /orders`, and the data of the event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Receipt {
    /// Made by the database.
    pub order_id: i64,
    /// What was ordered.
    pub item: String,
    /// How many.
    pub quantity: u16,
}

/// What others have to be told.
#[derive(Debug, Serialize, Event)]
#[event(topic = "orders", name = "order.placed", key = "{order_id}")]
pub struct OrderPlaced {
    /// Made by the database.
    pub order_id: i64,
    /// What was ordered.
    pub item: String,
    /// How many.
    pub quantity: u16,
}

impl Receipt {
    /// Where the order can be found.
    pub fn location(&self) -> String {
        format!("/orders/{}", self.order_id)
    }

    /// The event that tells of it.
    pub fn placed(&self) -> OrderPlaced {
        OrderPlaced {
            order_id: self.order_id,
            item: self.item.clone(),
            quantity: self.quantity,
        }
    }
}

/// Why an order is not placed. [`status`](Self::status) and [`problem`](Self::problem) are its answer in every framework.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// No `Authorization: Bearer`.
    #[error("the request names no user")]
    Unauthorized,
    /// Final.
    #[error("the payment was refused")]
    PaymentRequired,
    /// May go well the next time.
    #[error("the order could not be placed")]
    Failed,
    /// Of the application's own statements.
    #[error("the database failed")]
    Sql(#[from] sqlx::Error),
    /// Of the toolkit, outside a call.
    #[error(transparent)]
    Toolkit(#[from] effectively::Error),
}

impl OrderError {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::Unauthorized => 401,
            Self::PaymentRequired => 402,
            Self::Failed => 500,
            Self::Sql(sqlx::Error::PoolTimedOut | sqlx::Error::Io(_)) => 503,
            Self::Sql(_) => 500,
            Self::Toolkit(error) => error.status(),
        }
    }

    /// The name for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::PaymentRequired => "payment_required",
            Self::Failed | Self::Sql(_) => "order_failed",
            Self::Toolkit(error) => error.code(),
        }
    }

    /// What became of the request, and what its sender can do.
    fn detail(&self) -> &'static str {
        match self {
            Self::Unauthorized => "nothing was done; send `Authorization: Bearer <user>`",
            Self::PaymentRequired => {
                "no order was placed, and a retry gets this answer again; send a new order with a new key"
            }
            Self::Failed | Self::Sql(_) => "nothing was stored; retry with the same key",
            Self::Toolkit(_) => "nothing was changed; try again later",
        }
    }

    /// RFC 9457 problem+json.
    pub fn problem(&self) -> Vec<u8> {
        json!({
            "type": "about:blank",
            "title": self.to_string(),
            "status": self.status(),
            "detail": self.detail(),
            "code": self.code(),
        })
        .to_string()
        .into_bytes()
    }
}

/// A refused payment is final: it is recorded, and every retry of the request gets it again. All other errors free the key.
impl Refusal for OrderError {
    fn refusal(&self) -> Option<Recorded> {
        matches!(self, Self::PaymentRequired).then(|| {
            Recorded::refusal(self.problem())
                .with_status(self.status())
                .with_header("content-type", b"application/problem+json")
        })
    }
}

/// The user that an `Authorization: Bearer <user>` names. Here the token is the name.
///
/// # Errors
/// [`OrderError::Unauthorized`] for anything else.
pub fn bearer(authorization: Option<&[u8]>) -> Result<String, OrderError> {
    let text = authorization.and_then(|value| str::from_utf8(value).ok());
    match text.and_then(|text| text.split_once(' ')) {
        Some((scheme, user))
            if scheme.eq_ignore_ascii_case("bearer") && !user.trim().is_empty() =>
        {
            Ok(user.trim().to_owned())
        }
        _ => Err(OrderError::Unauthorized),
    }
}

/// Everything in the outbox, oldest first.
///
/// # Errors
/// Of the toolkit.
pub async fn events<DB: Dialect>(ledger: &Ledger<DB>) -> Result<Vec<Value>, OrderError> {
    let events = ledger.outbox().peek(u32::MAX).await?;
    let shown = events.iter().map(|event| {
        let data: Value = serde_json::from_slice(&event.data).unwrap_or_default();
        json!({
            "id": event.id.to_string(), "topic": event.topic, "type": event.name, "key": event.partition_key, "data": data,
        })
    });
    Ok(shown.collect())
}
