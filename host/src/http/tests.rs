use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::engine::health::Health;

async fn serve() -> (Server, SocketAddr) {
    let listener = Listener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let address = listener.address();
    (listener.serve(router(Arc::new(Health::default()))), address)
}

/// Sends these bytes, and returns what comes back until the connection is closed.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server that has refused a request may reset what is still on its way.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn status(address: SocketAddr, method: &str, path: &str) -> String {
    let answer =
        ask(address, &format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_host_that_starts_is_alive_and_not_ready() {
    let (server, address) = serve().await;
    assert_eq!(status(address, "GET", "/healthz").await, "HTTP/1.1 200 OK");
    assert_eq!(status(address, "HEAD", "/healthz").await, "HTTP/1.1 200 OK");
    assert_eq!(status(address, "GET", "/readyz").await, "HTTP/1.1 503 Service Unavailable");
    server.stop().await;
}

#[tokio::test]
async fn other_paths_are_not_found_and_other_methods_are_not_allowed() {
    let (server, address) = serve().await;
    for path in ["/", "/healthz/", "/readyz/x", "/../etc/passwd", "/%2e%2e"] {
        assert_eq!(status(address, "GET", path).await, "HTTP/1.1 404 Not Found", "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        assert_eq!(status(address, method, "/readyz").await, "HTTP/1.1 405 Method Not Allowed", "{method}");
    }
    let answer = ask(address, "DELETE /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.contains("allow: GET,HEAD"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn heads_that_are_too_long_or_have_too_many_fields_are_refused() {
    let (server, address) = serve().await;
    let many = "a: b\r\n".repeat(MOST_HEADERS + 1);
    let long = format!("a: {}\r\n", "b".repeat(LARGEST_HEAD));
    for fields in [many, long] {
        let answer = ask(address, &format!("GET /healthz HTTP/1.1\r\n{fields}\r\n")).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    assert_eq!(status(address, "GET", "/healthz").await, "HTTP/1.1 200 OK", "others are answered");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_too_long_loses_its_connection() {
    let moment = Duration::from_millis(20);
    for patience in [Patience { head: moment, ..PATIENCE }, Patience { connection: moment, ..PATIENCE }] {
        let listener = Listener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let address = listener.address();
        let server = listener.serve_with(patience, router(Arc::new(Health::default())));
        for begun in ["", "GET /healthz HTTP/1.1\r\nho"] {
            let answer = ask(address, begun).await;
            assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn clients_that_are_stuck_do_not_hold_up_the_end() {
    let (server, address) = serve().await;
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    let idle = TcpStream::connect(address).await.unwrap();
    // One that asks and never reads: as much as the buffers take.
    let deaf = TcpStream::connect(address).await.unwrap();
    let asking = async {
        loop {
            deaf.writable().await.unwrap();
            let _ = deaf.try_write(&b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000));
        }
    };
    tokio::select! {
        () = asking => {}
        // All three are accepted: a fourth one is answered.
        answer = status(address, "GET", "/healthz") => assert_eq!(answer, "HTTP/1.1 200 OK"),
    }
    server.stop().await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens there any more");
    drop((half, idle, deaf));
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_with_what_to_do() {
    let (server, address) = serve().await;
    let error = Listener::bind(address).await.unwrap_err();
    let told = explain(address, &error);
    assert!(told.contains(&address.to_string()) && told.contains("choose another port"), "{told}");
    server.stop().await;
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], 0));
    let told = explain(elsewhere, &Listener::bind(elsewhere).await.unwrap_err());
    assert!(told.contains("no network interface"), "{told}");
}
