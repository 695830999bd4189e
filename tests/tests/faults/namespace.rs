//! A host in a network of its own, whose cable to the database is pulled: the system's own TCP in
//! front of packets that are lost.

use std::net::Ipv4Addr;
use std::process::Command;

use innkeeper_tests::relay::Relay;
use innkeeper_tests::server::{OwnServer, url_at};

use crate::stage::{DATABASE, Stage};

/// A network namespace with two cables: one to the database, and one to ask the host for its
/// health.
struct Namespace {
    name: String,
    number: u8,
}

impl Namespace {
    fn new() -> Self {
        let process = std::process::id();
        let number = u8::try_from(process % 250).expect("below 250");
        let namespace = Self { name: format!("innkeeper-{process}"), number };
        let name = &namespace.name;
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        for cable in [Cable::Database, Cable::Health] {
            let outside = namespace.outside(cable);
            let (near, far) = (namespace.address(cable, 1), namespace.address(cable, 2));
            ip(&format!("link add {outside} type veth peer name inside{} netns {name}", cable as u8));
            ip(&format!("addr add {near}/30 dev {outside}"));
            ip(&format!("link set {outside} up"));
            ip(&format!("-n {name} addr add {far}/30 dev inside{}", cable as u8));
            ip(&format!("-n {name} link set inside{} up", cable as u8));
        }
        namespace
    }

    /// The end of a cable that is outside.
    fn outside(&self, cable: Cable) -> String {
        format!("ink{}x{}", cable as u8, self.number)
    }

    /// Of the addresses that are for tests of networks (RFC 2544).
    fn address(&self, cable: Cable, end: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, cable as u8, self.number, end)
    }

    fn pull(&self) {
        ip(&format!("link set {} down", self.outside(Cable::Database)));
    }

    fn plug_in(&self) {
        ip(&format!("link set {} up", self.outside(Cable::Database)));
    }
}

#[derive(Clone, Copy)]
enum Cable {
    Database = 18,
    Health = 19,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The cables go with it.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split(' ')).output().expect("there is `ip` (package iproute2)");
    assert!(
        done.status.success(),
        "this test needs a network namespace, which only root may make (in a container, one that may \
         administer the network): ip {args}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_packets_are_lost_says_so_and_goes_on_when_they_arrive_again() {
    let server = OwnServer::start(&[]).await;
    server.execute(&format!("create database {DATABASE}")).await;
    let namespace = Namespace::new();
    let relay = Relay::at(namespace.address(Cable::Database, 1), server.address()).await;
    let url = url_at(relay.address(), DATABASE);
    let by = ["ip", "netns", "exec", &namespace.name];
    let listen = namespace.address(Cable::Health, 2);
    let mut stage = Stage::in_place(&server.database(DATABASE), &url, "timeout = \"1s\"", listen, &by).await;
    stage.until_busy().await;
    namespace.pull();
    stage.until_unready("no answer within").await;
    stage.release().await;
    namespace.plug_in();
    stage.all_ends_well().await;
}
