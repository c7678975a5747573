//! Which addresses are public, and a resolver that answers with no others.
//!
//! A webhook's address is chosen by whoever wants to receive, and called from inside a network: without this it could reach
//! what is not meant for the outside (Standard Webhooks, "Server side request forgery"). What counts are the addresses that a
//! connection is made to; a name may have others every time that it is looked up.

use std::{
    error::Error,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::text::causes;

/// An endpoint lies at an address that is not called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{host}` is {address}, {kind}")]
pub struct PrivateAddress {
    /// The host of the subscription's address.
    pub host: String,
    /// What it is, or what its name stands for now.
    pub address: IpAddr,
    /// Which kind of address that is, such as `a loopback address`.
    pub kind: &'static str,
}

impl PrivateAddress {
    /// Whether `host` is an address (not a name) that is not called; in brackets if it is one of IPv6.
    pub(crate) fn of_literal(host: &str) -> Option<Self> {
        let address: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        kind(address).map(|kind| Self { host: host.to_owned(), address, kind })
    }

    /// Finds it among the causes of a failed call.
    pub(crate) fn in_chain<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        causes(error).find_map(|error| error.downcast_ref())
    }
}

/// A looked-up name's addresses.
pub(crate) type Found = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Answers with public addresses only.
pub(crate) struct PublicOnly<L> {
    look_up: L,
}

/// Asks the system, as reqwest does without a resolver of ours.
pub(crate) fn of_system(host: String) -> Found {
    Box::pin(async move {
        let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    })
}

impl<L: Fn(String) -> Found> PublicOnly<L> {
    pub(crate) fn new(look_up: L) -> Self {
        Self { look_up }
    }
}

impl<L: Fn(String) -> Found + Send + Sync + 'static> Resolve for PublicOnly<L> {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let found = (self.look_up)(host.clone());
        Box::pin(async move {
            let public = public(&host, found.await?)?;
            // Port 0 stands for the address's own.
            Ok(Box::new(public.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// The public ones of a name's addresses; a name that has others beside them is called at these.
fn public(host: &str, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, PrivateAddress> {
    let refused = found.iter().find_map(|address| kind(*address).map(|kind| (*address, kind)));
    let public: Vec<IpAddr> = found.into_iter().filter(|address| kind(*address).is_none()).collect();
    match refused {
        Some((address, kind)) if public.is_empty() => {
            Err(PrivateAddress { host: host.to_owned(), address, kind })
        }
        _ => Ok(public),
    }
}

/// What is special about an address; none of a public one.
fn kind(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => kind_of_v4(address),
        IpAddr::V6(address) => kind_of_v6(address),
    }
}

const RESERVED: &str = "a reserved address";
const DOCUMENTATION: &str = "an address of documentation";

/// By IANA's registry of special-purpose addresses (RFC 6890), and multicast (RFC 5771).
fn kind_of_v4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address.octets() {
        [0, ..] => "an unspecified address",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "a private address",
        [100, 64..=127, ..] => "a carrier's shared address (CGNAT)",
        [127, ..] => "a loopback address",
        [169, 254, ..] => "a link-local address",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => DOCUMENTATION,
        // Protocol assignments, the relays of 6to4, benchmarks.
        [192, 0, 0, _] | [192, 88, 99, _] | [198, 18..=19, ..] => RESERVED,
        [224..=239, ..] => "a multicast address",
        [240..=255, ..] => RESERVED,
        _ => return None,
    })
}

/// By IANA's registry of special-purpose addresses of IPv6 (RFC 6890) and the only range that is given out for unicast,
/// 2000::/3 (RFC 4291, section 2.4). One with an IPv4 address inside leads there.
fn kind_of_v6(address: Ipv6Addr) -> Option<&'static str> {
    let [a, b, c, .., g, h] = address.segments();
    let inside = |high: u16, low: u16| kind_of_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    Some(match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => "an unspecified address",
        [0, 0, 0, 0, 0, 0, 0, 1] => "a loopback address",
        [0, 0, 0, 0, 0, 0xffff, _, _] => "an IPv4 address in IPv6 (v4-mapped)",
        // Translated by the network (NAT64, RFC 6052) and carried in IPv4 (6to4, RFC 3056).
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => return inside(g, h),
        [0x2002, ..] => return inside(b, c),
        [0xfc00..=0xfdff, ..] => "a private address (ULA)",
        [0xfe80..=0xfebf, ..] => "a link-local address",
        [0xff00..=0xffff, ..] => "a multicast address",
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => DOCUMENTATION,
        // Protocol assignments, Teredo among them.
        [0x2001, 0..=0x01ff, ..] => RESERVED,
        _ if !(0x2000..=0x3fff).contains(&a) => RESERVED,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
