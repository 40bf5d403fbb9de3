//! The sink of webhooks against the conformance suite, on a real HTTP server that verifies, and what it promises beyond it.

// A test that cannot go on says why and stops.
#![allow(clippy::expect_used)]

use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use effectively::sink::Delivery;
use effectively::sink::webhook::{Secret, Webhook, WebhookBuilder};
use effectively::testing::sink::{Received, Rig};
use effectively_tests::{Proxy, eventually};

use receiver::{Receiver, Request};

mod answers;
mod headers;
mod policy;
mod receiver;

effectively::sink_conformance!(rig);

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OTHER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ";
const LIMIT: usize = 64 * 1024;
const BOUND: Duration = Duration::from_secs(20);

async fn rig() -> Option<Verifying> {
    let receiver = Receiver::start(SECRET);
    let proxy = Arc::new(Proxy::to(receiver.address));
    Some(Verifying { receiver, proxy })
}

struct Verifying {
    receiver: Receiver,
    proxy: Arc<Proxy>,
}

impl Rig for Verifying {
    type Sink = Webhook;

    async fn sink(&mut self) -> Webhook {
        to(self.proxy.address()).build().expect("a sink")
    }

    async fn topic(&mut self) -> String {
        "orders".to_owned()
    }

    /// One receiver for each rig, so all of it belongs to the topic.
    async fn received(&mut self, _: &str, at_least: usize) -> Vec<Received> {
        let heard = Arc::clone(&self.receiver.state);
        let enough = move || ready(heard.accepted().len() >= at_least);
        eventually(BOUND, enough).await;
        let accepted = self.receiver.state.accepted();
        accepted.iter().map(received).collect()
    }

    fn oversized(&mut self) -> Option<usize> {
        Some(LIMIT)
    }

    fn cut_soon(&mut self) -> bool {
        let proxy = Arc::clone(&self.proxy);
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(10));
            proxy.sever();
        });
        true
    }

    async fn restart(&mut self) -> bool {
        self.receiver.restart().await;
        true
    }
}

/// As a receiver of CloudEvents reads it: its attributes are percent-encoded, other headers are not.
fn received(request: &Request) -> Received {
    let header = |name: &str| request.headers.get(name).cloned();
    let decoded = |name: &str| header(name).map(|value| percent_decoded(&value));
    let decode = |(name, value): (&String, &String)| match name.starts_with("ce-") {
        true => (name.clone(), percent_decoded(value)),
        false => (name.clone(), value.clone()),
    };
    Received {
        id: header("webhook-id").unwrap_or_default(),
        name: decoded("ce-type").unwrap_or_default(),
        key: decoded("ce-partitionkey"),
        data: request.body.clone(),
        headers: request.headers.iter().map(decode).collect(),
    }
}

fn percent_decoded(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = str::from_utf8(&digits).expect("two digits");
                bytes.push(u8::from_str_radix(digits, 16).expect("hex"));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

fn to(address: SocketAddr) -> WebhookBuilder {
    Webhook::builder(&format!("http://{address}/hooks"), secret(SECRET))
        .allow_http()
        .allow_internal()
}

fn secret(text: &str) -> Secret {
    Secret::new(text).expect("a secret")
}

fn is_fatal(answer: &Delivery) -> bool {
    matches!(answer, Delivery::Rejected(refused) if refused.is_fatal())
}
