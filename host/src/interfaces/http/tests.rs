//! Requests, without a guest.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::connect::{Destination, NotConnected, Resolve, connect};
use crate::capability::address::Network;
use crate::capability::rule::Rule;

/// Knows one name's addresses, and how often it was asked.
#[derive(Default)]
struct Zone {
    addresses: Vec<SocketAddr>,
    asked: AtomicU32,
}

#[async_trait]
impl Resolve for Zone {
    async fn resolve(&self, _name: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.addresses.clone())
    }
}

fn zone(addresses: &[&str]) -> Zone {
    Zone { addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(), ..Zone::default() }
}

async fn connected(host: &str, zone: &Zone, addresses: &[&str]) -> Result<SocketAddr, NotConnected> {
    let rule = Rule::parse(&format!("GET http://{host}"), "").unwrap();
    let addresses: Vec<_> = addresses.iter().map(|text| Network::parse(text).unwrap()).collect();
    let to = Destination {
        host,
        port: 1,
        rule: &rule,
        addresses: &addresses,
        deadline: Instant::now() + Duration::from_secs(60),
    };
    Ok(connect(&to, zone).await?.peer_addr().unwrap())
}

#[tokio::test]
async fn a_name_that_leads_to_an_address_that_is_not_public_is_not_followed() {
    for address in [
        "127.0.0.1:1",
        "10.0.0.1:1",
        "169.254.169.254:1",
        "100.64.0.1:1",
        "0.0.0.0:1",
        "[::1]:1",
        "[fe80::1]:1",
        "[fd00::1]:1",
        "[::ffff:127.0.0.1]:1",
        "[64:ff9b::7f00:1]:1",
        "[2002:7f00:1::]:1",
    ] {
        let zone = zone(&[address]);
        let refused = connected("h.test", &zone, &["192.168.0.0/16"]).await;
        let Err(NotConnected::Prohibited(refused, _)) = refused else { panic!("{address}: {refused:?}") };
        assert_eq!(refused, zone.addresses[0].ip());
    }
}

#[tokio::test]
async fn an_address_that_is_named_is_connected_to_and_others_of_the_name_are_left_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    // What is not granted comes first, and is not tried.
    let zone = zone(&["10.255.255.1:1", &at.to_string(), "[::1]:1"]);
    let connected_to = connected("h.test", &zone, &["127.0.0.0/8"]).await.unwrap();
    assert_eq!(connected_to, at);
    assert_eq!(zone.asked.load(Ordering::Relaxed), 1, "what was checked is what is connected to");
}

#[tokio::test]
async fn localhost_is_a_loopback_address_whatever_the_resolver_says() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    for host in ["localhost", "app.localhost"] {
        assert_eq!(connected(host, &zone(&[&at.to_string()]), &[]).await.unwrap(), at, "{host}");
    }
    // A public address comes first, and is not tried; nor is one that is named for other names.
    let after = zone(&["192.0.0.9:1", "8.8.8.8:1", &at.to_string()]);
    assert_eq!(connected("LocalHost", &after, &["192.0.0.0/24"]).await.unwrap(), at);
    for address in ["10.0.0.1:1", "8.8.8.8:1", "[2606:4700::1]:1", "[::ffff:8.8.8.8]:1"] {
        for host in ["localhost", "app.localhost"] {
            let elsewhere = connected(host, &zone(&[address]), &["10.0.0.0/8"]).await;
            assert!(
                matches!(elsewhere, Err(NotConnected::Prohibited(..))),
                "{host} {address}: {elsewhere:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_address_that_refuses_leaves_the_next_one_its_turn() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let zone = zone(&[&closed.to_string(), &at.to_string()]);
    assert_eq!(connected("h.test", &zone, &["127.0.0.1"]).await.unwrap(), at);
    let nobody = connected("h.test", &super::tests::zone(&[&closed.to_string()]), &["127.0.0.1"]).await;
    assert!(
        matches!(nobody, Err(NotConnected::Failed(wasmtime_wasi_http::Error::ConnectionRefused))),
        "{nobody:?}"
    );
}
