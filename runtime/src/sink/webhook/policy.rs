//! Which addresses a webhook may go to. A receiver's URL often comes from a customer, who must not reach the inside with it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// What is not a host on the public internet, by the registries of IANA for special purposes.
const INTERNAL_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8), // this network: Linux connects to itself
    (Ipv4Addr::new(10, 0, 0, 0), 8), // private
    (Ipv4Addr::new(100, 64, 0, 0), 10), // carriers' NAT, and Alibaba's metadata
    (Ipv4Addr::new(127, 0, 0, 0), 8), // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's host, which looks public
    (Ipv4Addr::new(169, 254, 0, 0), 16), // link-local, and the metadata of most clouds
    (Ipv4Addr::new(172, 16, 0, 0), 12), // private
    (Ipv4Addr::new(192, 0, 0, 0), 24), // protocol assignments, and Oracle's metadata
    (Ipv4Addr::new(192, 0, 2, 0), 24), // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24), // relays of 6to4
    (Ipv4Addr::new(192, 168, 0, 0), 16), // private
    (Ipv4Addr::new(198, 18, 0, 0), 15), // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24), // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4), // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4), // reserved, and broadcast
];

/// All that is handed out. Outside of it are loopback, link-local, unique local, site-local and multicast.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// And what of that is no host either.
const INTERNAL_V6: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments: Teredo, benchmarks, ORCHID
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// Prefixes behind which an IPv4 address stands, and at which of its bytes: it is the one that is reached.
const CARRIERS: &[(Ipv6Addr, u32, usize)] = &[
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, 12), // IPv4-mapped
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, 12), // NAT64
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, 2),  // 6to4
];

/// Whether the address is a host on the public internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !INTERNAL_V4.iter().any(|(net, bits)| {
            let differ = address.to_bits() ^ net.to_bits();
            differ.leading_zeros() >= *bits
        }),
        IpAddr::V6(address) => match carried(address) {
            Some(inner) => is_public(inner.into()),
            None => {
                within(address, GLOBAL_V6) && !INTERNAL_V6.iter().any(|net| within(address, *net))
            }
        },
    }
}

fn within(address: Ipv6Addr, (net, bits): (Ipv6Addr, u32)) -> bool {
    (address.to_bits() ^ net.to_bits()).leading_zeros() >= bits
}

fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let (_, _, at) = CARRIERS
        .iter()
        .find(|(net, bits, _)| within(address, (*net, *bits)))?;
    let inner: [u8; 4] = address.octets().get(*at..at + 4)?.try_into().ok()?;
    Some(inner.into())
}

/// The URL's host, if it is an address: no resolver is asked for those.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    host.parse().ok()
}

/// Resolves names to public addresses only. The connection is made to what it answers and to nothing else, so that a name which
/// answers something different the next time gains nothing.
pub(super) struct PublicOnly(pub(super) Option<Arc<dyn Resolve>>);

/// A name has an internal address. Its public ones are not used either: a receiver has no good reason to have both.
#[derive(Debug, thiserror::Error)]
#[error("the host has an internal address")]
pub(super) struct InternalAddress;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let asked = match &self.0 {
            Some(resolver) => resolver.resolve(name),
            None => system(name),
        };
        Box::pin(async move {
            let addresses: Vec<_> = asked.await?.collect();
            if addresses.iter().all(|address| is_public(address.ip())) {
                Ok(Box::new(addresses.into_iter()) as Addrs)
            } else {
                Err(InternalAddress.into())
            }
        })
    }
}

/// The system's resolver, which blocks its thread.
fn system(name: Name) -> Resolving {
    Box::pin(async move {
        let asked = move || (name.as_str(), 0).to_socket_addrs();
        let addresses = tokio::task::spawn_blocking(asked).await??;
        Ok(Box::new(addresses) as Addrs)
    })
}

#[cfg(test)]
mod tests;
