//! A receiver of webhooks that verifies what it gets, and answers as it is told.

use std::collections::BTreeMap;
use std::future::{pending, ready};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{
    HeaderMap, StatusCode, Uri,
    header::{LOCATION, RETRY_AFTER},
};
use axum::response::{IntoResponse, Response};
use effectively_tests::eventually;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;

use crate::{BOUND, LIMIT};

/// An HTTP server on a runtime of its own, so that ending it ends all its connections.
pub struct Receiver {
    pub address: SocketAddr,
    pub state: Arc<Heard>,
    runtime: Option<Runtime>,
}

pub struct Heard {
    verifier: standardwebhooks::Webhook,
    requests: Mutex<Vec<Request>>,
    answer: Mutex<Answer>,
    /// How many requests are being answered.
    pub active: AtomicUsize,
}

#[derive(Clone, Copy)]
pub enum Answer {
    Status(u16),
    /// A status with a `Retry-After`.
    Later(u16, &'static str),
    Redirect,
    Never,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    pub accepted: bool,
}

impl Receiver {
    pub fn start(secret: &str) -> Self {
        let state = Arc::new(Heard {
            verifier: standardwebhooks::Webhook::new(secret).expect("a secret"),
            requests: Mutex::default(),
            answer: Mutex::new(Answer::Status(200)),
            active: AtomicUsize::new(0),
        });
        let (runtime, address) =
            serve(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::clone(&state)).expect("a free port");
        Self {
            address,
            state,
            runtime: Some(runtime),
        }
    }

    /// Ends in the middle of whatever it is at, and comes back where it was.
    pub async fn restart(&mut self) {
        self.stop();
        let (address, state) = (self.address, Arc::clone(&self.state));
        let again = move || ready(serve(address, Arc::clone(&state)));
        let (runtime, _) = eventually(BOUND, again).await;
        self.runtime = Some(runtime);
    }

    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    pub fn answers(&self, answer: Answer) {
        *lock(&self.state.answer) = answer;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Heard {
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.requests).clone()
    }

    pub fn accepted(&self) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.accepted);
        requests
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(address: SocketAddr, state: Arc<Heard>) -> std::io::Result<(Runtime, SocketAddr)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let listener = {
        let _inside = runtime.enter();
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address).and_then(|()| socket.listen(1024))
    };
    let listener: TcpListener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            runtime.shutdown_background();
            return Err(error);
        }
    };
    let address = listener.local_addr()?;
    let router = Router::new()
        .fallback(answer)
        .layer(DefaultBodyLimit::disable())
        .with_state(state);
    runtime.spawn(async move { axum::serve(listener, router).await });
    Ok((runtime, address))
}

async fn answer(
    State(heard): State<Arc<Heard>>,
    path: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let verified = heard.verifier.verify(&body, &headers).is_ok();
    let answer = *lock(&heard.answer);
    // After that: who sees it here knows that a later `answers` is not for it.
    heard.active.fetch_add(1, Ordering::SeqCst);
    let answer = match answer {
        _ if !verified => Answer::Status(401),
        Answer::Status(200) if body.len() > LIMIT => Answer::Status(413),
        answer => answer,
    };
    let mut lines = BTreeMap::new();
    for (name, value) in &headers {
        let value = value.to_str().expect("ASCII").to_owned();
        let twice = lines.insert(name.to_string(), value);
        assert_eq!(twice, None, "{name} is there twice");
    }
    let request = Request {
        path: path.to_string(),
        headers: lines,
        body: body.to_vec(),
        accepted: matches!(answer, Answer::Status(200..=299)),
    };
    lock(&heard.requests).push(request);
    let response = match answer {
        Answer::Status(status) => {
            let status = StatusCode::from_u16(status).expect("a status");
            // What a bad receiver does: the event comes back in its answer.
            (status, body).into_response()
        }
        Answer::Later(status, when) => {
            let status = StatusCode::from_u16(status).expect("a status");
            (status, [(RETRY_AFTER, when)]).into_response()
        }
        Answer::Redirect => {
            (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "/inside")]).into_response()
        }
        Answer::Never => pending().await,
    };
    heard.active.fetch_sub(1, Ordering::SeqCst);
    response
}
