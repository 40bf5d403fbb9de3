//! A payment API that remembers each key, and is not always easy to reach.

use std::{
    collections::HashSet,
    future::pending,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use tokio::net::TcpListener;

use crate::PaymentDue;

#[derive(Clone, Default)]
pub struct Api(Arc<Mutex<Book>>);

/// What the API has done.
#[derive(Default)]
pub struct Book {
    pub calls: usize,
    pub keys: HashSet<String>,
    /// The order of each charge.
    pub charges: Vec<i64>,
}

impl Api {
    pub async fn serve(&self) -> io::Result<SocketAddr> {
        let app = Router::new()
            .route("/charges", post(charges))
            .with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(address)
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    pub fn once_for_each(&self, orders: i64) -> bool {
        let mut charges = self.charges.clone();
        charges.sort_unstable();
        charges.into_iter().eq(1..=orders)
    }
}

async fn charges(
    State(api): State<Api>,
    head: HeaderMap,
    Json(due): Json<PaymentDue>,
) -> StatusCode {
    let key = head
        .get("idempotency-key")
        .and_then(|key| key.to_str().ok());
    let call = {
        let mut book = api.book();
        book.calls += 1;
        if key.is_none_or(|key| book.keys.insert(key.to_owned())) {
            book.charges.push(due.order_id);
        }
        book.calls
    };
    // For the demonstration: all of these have charged, and the caller does not get to know.
    match call {
        1 | 9 => pending().await, // it hangs up when it has waited long enough
        4 => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    }
}
