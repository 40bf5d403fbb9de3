use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;

#[test]
fn hosts_on_the_internet_are_public() {
    let public = [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.101.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "2000::1",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2001:db7:ffff::1",
        "2001:db9::1",
        "2606:4700:4700::1111",
        "3ffe::1",
        "3fff:1000::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
    ];
    for text in public {
        assert!(is_public(text.parse().unwrap()), "{text}");
    }
}

#[test]
fn everything_else_is_internal() {
    let internal = [
        "0.0.0.0",
        "0.255.255.255",
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.0",
        "100.100.100.200",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.0.1",
        "169.254.169.254",
        "169.254.170.2",
        "172.16.0.0",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.0",
        "192.168.255.255",
        "198.18.0.0",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:0.0.0.0",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b::192.168.0.1",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:1ff:ffff::1",
        "2001:db8::1",
        "2001:db8:ffff::1",
        "2002:7f00:1::1",
        "2002:a00:1::",
        "2002:a9fe:a9fe::1",
        "2002:c0a8:1::1",
        "3fff::1",
        "3fff:fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fdff::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "1fff::1",
    ];
    for text in internal {
        assert!(!is_public(text.parse().unwrap()), "{text}");
    }
}

/// Public the first time, then another thing: what DNS rebinding does.
struct Rebinding(AtomicBool, Vec<SocketAddr>);

impl Resolve for Rebinding {
    fn resolve(&self, _: Name) -> Resolving {
        let public = vec![SocketAddr::from(([8, 8, 8, 8], 0))];
        let first = !self.0.swap(true, Ordering::SeqCst);
        let addresses = if first { public } else { self.1.clone() };
        Box::pin(async move { Ok(Box::new(addresses.into_iter()) as Addrs) })
    }
}

#[tokio::test]
async fn each_answer_is_checked_and_each_address_in_it() {
    let inside = SocketAddr::from(([127, 0, 0, 1], 0));
    let outside = SocketAddr::from(([8, 8, 4, 4], 0));
    for later in [vec![inside], vec![outside, inside]] {
        let resolver = PublicOnly(Some(Arc::new(Rebinding(AtomicBool::new(false), later))));
        let name = || "hooks.example".parse().unwrap();
        let first: Vec<_> = resolver.resolve(name()).await.unwrap().collect();
        assert_eq!(first, [SocketAddr::from(([8, 8, 8, 8], 0))]);
        let error = resolver.resolve(name()).await.err().unwrap();
        assert!(error.is::<InternalAddress>(), "{error}");
    }
}

#[tokio::test]
async fn the_names_of_this_machine_are_internal() {
    let resolver = PublicOnly(None);
    let answer = resolver.resolve("localhost".parse().unwrap()).await;
    assert!(answer.err().unwrap().is::<InternalAddress>());
}

#[test]
fn a_literal_is_read_with_and_without_brackets() {
    assert_eq!(literal("[::1]"), Some(Ipv6Addr::LOCALHOST.into()));
    assert_eq!(literal("10.0.0.1"), Some(Ipv4Addr::new(10, 0, 0, 1).into()));
    assert_eq!(literal("hooks.example"), None);
}
