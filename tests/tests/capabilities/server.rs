//! A server of HTTP that says what it was asked, and ends, stalls or goes on as its path asks.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// For `localhost` and `127.0.0.1`, by a CA whose key nobody has.
const CERTIFICATE: &[u8] = include_bytes!("server.pem");
const KEY: &[u8] = include_bytes!("server.key");

/// The server; it ends with the test.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    heads: Vec<String>,
    /// Connections that are open.
    open: usize,
}

impl Server {
    /// Listens in the clear.
    pub async fn new() -> Self {
        Self::listen("127.0.0.1", None).await
    }

    /// Listens with TLS.
    pub async fn with_tls() -> Self {
        Self::with_tls_at("127.0.0.1").await
    }

    /// Listens with TLS on another address of this machine.
    pub async fn with_tls_at(address: &str) -> Self {
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE).expect("it is a certificate");
        let key = PrivateKeyDer::from_pem_slice(KEY).expect("it is a key");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring knows them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("they belong together");
        Self::listen(address, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn listen(address: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let server = Self { address, seen: seen.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, tls) = (seen.clone(), tls.clone());
                tokio::spawn(async move {
                    seen.lock().expect("no holder panics").open += 1;
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                answer(stream, &seen).await;
                            }
                        }
                        None => answer(stream, &seen).await,
                    }
                    seen.lock().expect("no holder panics").open -= 1;
                });
            }
        });
        server
    }

    /// The heads of the requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.seen.lock().expect("no holder panics").heads.clone()
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.seen.lock().expect("no holder panics").open
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Mutex<Seen>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    // Whoever answers before it has the body may be done before there is too much of it.
    if head.contains("transfer-encoding: chunked") && !read_chunks(&mut stream).await {
        return;
    }
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    seen.lock().expect("no holder panics").heads.push(head.clone());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let last = path.rsplit('/').next().unwrap_or_default();
    let ok = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = match last {
        // Nothing, for as long as somebody waits.
        "silent" => String::new(),
        "stalled" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun".to_owned(),
        "broken" => "HTTP/1.1 200 OK\r\n:::\r\n\r\n".to_owned(),
        "moved" => format!("HTTP/1.1 302 Found\r\nlocation: {query}\r\ncontent-length: 0\r\n\r\n"),
        "large" => ok(&"y".repeat(query.parse().unwrap_or(0))),
        "large-head" => format!("HTTP/1.1 200 OK\r\nlarge: {}\r\n\r\n", "z".repeat(1 << 20)),
        "echo" => ok(&head),
        _ => ok("hello"),
    };
    if stream.write_all(answer.as_bytes()).await.is_err() {
        return;
    }
    // The body that was sent is of no interest, only when the other side leaves.
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}

/// Reads a body in chunks to its end; false where there is none.
async fn read_chunks(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    const END: &[u8] = b"0\r\n\r\n";
    let (mut last, mut buffer) = (Vec::new(), [0; 4096]);
    while !last.ends_with(END) {
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => last.extend_from_slice(&buffer[..read]),
            _ => return false,
        }
        last.drain(..last.len().saturating_sub(END.len()));
    }
    true
}
