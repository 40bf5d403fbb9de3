//! Where a webhook may go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use effectively::sink::webhook::{InvalidWebhook, Webhook};
use effectively::sink::{Delivery, Sink};
use effectively::testing::sink::events;
use effectively_tests::Proxy;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::receiver::Receiver;
use crate::{SECRET, secret};

/// Answers these in turn, and counts.
struct Answering(Vec<SocketAddr>, AtomicUsize);

impl Answering {
    fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Arc<Self> {
        Arc::new(Self(addresses.into_iter().collect(), AtomicUsize::new(0)))
    }
}

impl Resolve for Answering {
    fn resolve(&self, _: Name) -> Resolving {
        let turn = self.1.fetch_add(1, Ordering::SeqCst);
        let address = self.0[turn % self.0.len()];
        Box::pin(async move { Ok(Box::new([address].into_iter()) as Addrs) })
    }
}

#[tokio::test]
async fn a_name_with_an_internal_address_is_not_connected_to() {
    let receiver = Receiver::start(SECRET);
    let proxy = Proxy::to(receiver.address);
    let batch = events("orders", &[Some("ada")]);
    let port = proxy.address().port();
    let url = format!("http://hooks.example:{port}/");
    let builder = || Webhook::builder(&url, secret(SECRET)).allow_http();

    let inside = Answering::new([SocketAddr::from(([127, 0, 0, 1], 0))]);
    let sink = builder().resolver(inside.clone()).build().expect("a sink");
    let answers = sink.publish(&batch).await;
    let refused = Delivery::unavailable("no connection: the host has an internal address");
    assert_eq!(answers, std::slice::from_ref(&refused));
    assert_eq!(
        (inside.1.load(Ordering::SeqCst), proxy.connections()),
        (1, 0)
    );

    // The same on a network that is trusted: the resolver is what the connection is made with.
    let trusted = builder().allow_internal().resolver(inside).build();
    assert!(trusted.expect("a sink").publish(&batch).await[0].is_published());

    // By the system's resolver.
    let sink = Webhook::builder(&format!("http://localhost:{port}/"), secret(SECRET));
    let sink = sink.allow_http().build().expect("a sink");
    assert_eq!(sink.publish(&batch).await, [refused]);
    assert_eq!(receiver.state.requests().len(), 1);
}

#[tokio::test]
async fn a_name_that_changes_its_mind_gains_nothing() {
    let receiver = Receiver::start(SECRET);
    let port = receiver.address.port();
    // Nobody answers at the first one: the attempt ends by its timeout, or because there is no network.
    let public = SocketAddr::from(([8, 8, 8, 8], 0));
    let inside = SocketAddr::from(([127, 0, 0, 1], 0));
    let rebinding = Answering::new([public, inside]);
    let sink = Webhook::builder(&format!("http://hooks.example:{port}/"), secret(SECRET))
        .allow_http()
        .resolver(rebinding.clone())
        .timeout(Duration::from_millis(200))
        .build()
        .expect("a sink");
    let batch = events("orders", &[Some("ada")]);
    for _ in 0..4 {
        let answers = sink.publish(&batch).await;
        assert!(
            matches!(answers[0], Delivery::Unavailable(_)),
            "{answers:?}"
        );
    }
    assert_eq!(rebinding.1.load(Ordering::SeqCst), 4);
    assert!(receiver.state.requests().is_empty());
}

#[test]
fn urls_to_the_inside_are_refused_when_the_sink_is_built() {
    let refused = |url: &str, http: bool| {
        let builder = Webhook::builder(url, secret(SECRET));
        let builder = if http { builder.allow_http() } else { builder };
        builder.build().err().map(|error| match error {
            InvalidWebhook::Url => "url",
            InvalidWebhook::NotHttps => "not https",
            InvalidWebhook::Credentials => "credentials",
            InvalidWebhook::Internal => "internal",
            _ => "other",
        })
    };
    for (url, expected) in [
        ("https://shop.example/hooks", None),
        ("https://8.8.8.8/", None),
        ("https://[2606:4700:4700::1111]:8443/", None),
        ("", Some("url")),
        ("/hooks", Some("url")),
        ("https://", Some("url")),
        ("https://256.1.1.1/", Some("url")),
        ("http://shop.example/", Some("not https")),
        ("ftp://shop.example/", Some("not https")),
        ("file:///etc/passwd", Some("not https")),
        ("https://user@shop.example/", Some("credentials")),
        ("https://user:word@shop.example/", Some("credentials")),
        ("https://:word@shop.example/", Some("credentials")),
        ("https://127.0.0.1/", Some("internal")),
        ("https://127.0.0.1./", Some("internal")),
        ("https://127.1/", Some("internal")),
        ("https://0177.0.0.1/", Some("internal")),
        ("https://0x7f000001/", Some("internal")),
        ("https://2130706433/", Some("internal")),
        ("https://①②⑦.0.0.1/", Some("internal")),
        ("https://%31%32%37.0.0.1/", Some("internal")),
        ("https://0/", Some("internal")),
        ("https://169.254.169.254/latest", Some("internal")),
        ("https://100.100.100.200/", Some("internal")),
        ("https://[::1]/", Some("internal")),
        ("https://[::]/", Some("internal")),
        ("https://[::ffff:127.0.0.1]/", Some("internal")),
        ("https://[::ffff:7f00:1]/", Some("internal")),
        ("https://[64:ff9b::7f00:1]/", Some("internal")),
        ("https://[2002:7f00:1::]/", Some("internal")),
        ("https://[fd00:ec2::254]/", Some("internal")),
        ("https://[fe80::1]/", Some("internal")),
    ] {
        assert_eq!(refused(url, false), expected, "{url}");
    }
    assert_eq!(refused("http://shop.example/", true), None);
    assert_eq!(refused("http://10.0.0.1/", true), Some("internal"));
    assert_eq!(refused("gopher://shop.example/", true), Some("not https"));
    let trusted = Webhook::builder("https://10.0.0.1/", secret(SECRET)).allow_internal();
    assert!(trusted.build().is_ok());
}
