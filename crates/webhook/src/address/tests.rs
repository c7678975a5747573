#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::*;

fn kind_of(text: &str) -> Option<&'static str> {
    kind(text.parse().unwrap())
}

#[test]
fn addresses_inside_networks_are_told_from_public_ones() {
    for (addresses, words) in [
        (&["0.0.0.0", "0.1.2.3", "::"][..], "unspecified"),
        (
            &["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.178.1", "fc00::1", "fd12:3456::1"],
            "private",
        ),
        (&["100.64.0.1", "100.127.255.255"], "CGNAT"),
        (&["127.0.0.1", "127.255.0.1", "::1"], "loopback"),
        (&["169.254.169.254", "fe80::1", "febf::1"], "link-local"),
        (
            &["192.0.2.1", "198.51.100.7", "203.0.113.9", "2001:db8::1", "3fff::1", "3fff:fff::1"],
            "documentation",
        ),
        (&["224.0.0.1", "239.255.255.255", "ff02::1"], "multicast"),
        (
            &["192.0.0.8", "198.18.0.1", "198.19.9.9", "192.88.99.1", "240.0.0.1", "255.255.255.255"],
            "reserved",
        ),
        (&["2001::1", "2001:1ff::1", "64:ff9b:1::1", "100::1", "4000::1", "5f00::1", "fec0::1"], "reserved"),
        (&["::127.0.0.1", "::8.8.8.8"], "reserved"),
        (&["::ffff:127.0.0.1", "::ffff:8.8.8.8"], "v4-mapped"),
        (&["64:ff9b::10.0.0.1", "2002:0a00:0001::1"], "private"),
        (&["64:ff9b::7f00:1", "2002:7f00:1::"], "loopback"),
    ] {
        for address in addresses {
            assert!(
                kind_of(address).is_some_and(|kind| kind.contains(words)),
                "{address} {:?}",
                kind_of(address)
            );
        }
    }
}

#[test]
fn public_addresses_are_public_up_to_the_borders() {
    for address in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2000::",
        "2001:200::",
        "2001:db7::1",
        "2001:db9::1",
        "2606:4700::1111",
        "3ffe::1",
        "3fff:1000::1",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
    ] {
        assert_eq!(kind_of(address), None, "{address}");
    }
}

#[test]
fn a_literal_is_judged_as_the_address_it_is_and_a_name_is_not() {
    let refused = PrivateAddress::of_literal("[::1]").unwrap();
    assert_eq!(refused.to_string(), "`[::1]` is ::1, a loopback address");
    assert_eq!(PrivateAddress::of_literal("10.1.2.3").unwrap().kind, "a private address");
    for other in ["1.1.1.1", "[2606:4700::1111]", "localhost", "10.example.com"] {
        assert_eq!(PrivateAddress::of_literal(other), None, "{other}");
    }
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_name_is_judged_anew_each_time_it_is_looked_up() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    // The first answer is harmless, the second leads into the network: DNS rebinding.
    let resolver = PublicOnly::new(move |_| {
        let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        let found = addresses(if first { &["1.1.1.1"] } else { &["169.254.169.254"] });
        Box::pin(async move { Ok(found) })
    });
    let name = || Name::from_str("rebind.example").unwrap();
    let first: Vec<_> = resolver.resolve(name()).await.unwrap().collect();
    assert_eq!(first, ["1.1.1.1:0".parse().unwrap()]);
    let Err(error) = resolver.resolve(name()).await else { panic!("let through") };
    let refused: &PrivateAddress = error.downcast_ref().unwrap();
    assert_eq!(refused.to_string(), "`rebind.example` is 169.254.169.254, a link-local address");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn of_a_name_with_both_the_public_addresses_are_called() {
    let both = addresses(&["10.0.0.1", "1.1.1.1", "fd00::1", "2606:4700::1111"]);
    assert_eq!(public("x", both).unwrap(), addresses(&["1.1.1.1", "2606:4700::1111"]));
    assert_eq!(public("x", Vec::new()), Ok(Vec::new()));
    let first = public("x", addresses(&["10.0.0.1", "fd00::1"])).unwrap_err();
    assert_eq!(first.address, addresses(&["10.0.0.1"])[0]);
}

#[tokio::test]
async fn a_lookup_that_fails_is_no_private_address() {
    let resolver =
        PublicOnly::new(|_| -> Found { Box::pin(async { Err(io::Error::other("no such host")) }) });
    let Err(error) = resolver.resolve(Name::from_str("gone.example").unwrap()).await else {
        panic!("found something")
    };
    assert!(PrivateAddress::in_chain(error.as_ref()).is_none());
    assert_eq!(error.to_string(), "no such host");
}
