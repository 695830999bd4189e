//! The host's HTTP listener: one address for whoever watches over the host.
//!
//! It serves beside the work and never holds it up: what a client may send, how long it may take
//! and how many there may be are bounded, and so is the wait for them at the end.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod health;

pub use health::router;

/// Connections at a time; others wait to be accepted.
const MOST_CONNECTIONS: usize = 64;

/// Header fields of one request.
const MOST_HEADERS: usize = 64;

/// Bytes of a request's head: its line and its header fields.
const LARGEST_HEAD: usize = 16 << 10;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For the head of a request to arrive; a connection that is kept and not used ends after as
    /// long.
    head: Duration,
    /// For all that a connection is used for, so that clients that do not read their answers cannot
    /// keep every connection for themselves.
    connection: Duration,
}

const PATIENCE: Patience = Patience { head: Duration::from_secs(10), connection: Duration::from_secs(60) };

/// How long a connection that is to end may take to send its last answer.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// How long to wait where a connection could not be accepted, mostly for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(250);

/// An address that is listened on, and where nobody is answered yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Takes the address; port 0 stands for any that is free.
    ///
    /// # Errors
    /// Where the system does not give it. [`explain`] says what to do about it.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The address, with the port that it has been given.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers, until [`Server::stop`].
    #[must_use]
    pub fn serve(self, router: Router) -> Server {
        self.serve_with(PATIENCE, router)
    }

    fn serve_with(self, patience: Patience, router: Router) -> Server {
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(self.socket, router, patience, stop.clone()));
        Server { stop, task }
    }
}

/// Why an address cannot be listened on, and what to do about it.
#[must_use]
pub fn explain(address: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process listens there: stop it, or choose another port (each host on a machine needs \
             one of its own)"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; no network interface of this machine has that IP address: `127.0.0.1` is for this machine \
             alone, `0.0.0.0` for all its interfaces"
        }
        io::ErrorKind::PermissionDenied => "; a port below 1024 takes more rights: choose a higher one",
        _ => "",
    };
    format!("`listen`: {address} cannot be listened on: {error}{advice}")
}

/// A listener that answers.
#[derive(Debug)]
pub struct Server {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Accepts no more, and lets answers that are under way be sent for a moment.
    pub async fn stop(self) {
        self.stop.cancel();
        // It ends by itself: whatever it waits for is bounded. A panic was logged by itself.
        let _ = self.task.await;
    }
}

async fn accept(socket: TcpListener, router: Router, patience: Patience, stop: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let free = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let connections = TaskTracker::new();
    let mut failing = false;
    loop {
        let accepted = async {
            let turn = free.clone().acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((socket.accept().await?.0, turn))
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, turn)) => {
                failing = false;
                let answering = answer(stream, service.clone(), patience, stop.clone());
                connections.spawn(async move {
                    answering.await;
                    drop(turn);
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "a connection to `listen` could not be accepted; trying again");
                }
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_RETRY) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }
    drop(socket);
    connections.close();
    connections.wait().await;
}

/// Answers the requests of one connection, until it is over, too old, or `stop`.
async fn answer(
    stream: TcpStream,
    service: TowerToHyperService<Router>,
    patience: Patience,
    stop: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_headers(MOST_HEADERS)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => finish(connection).await,
        () = tokio::time::sleep(patience.connection) => finish(connection).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to `listen` was broken off");
    }
}

type Connection = http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>>;

/// The answer that is under way is the last one.
async fn finish(mut connection: std::pin::Pin<&mut Connection>) -> hyper::Result<()> {
    connection.as_mut().graceful_shutdown();
    // One that takes longer is dropped with its connection.
    tokio::time::timeout(LAST_ANSWER, connection).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests;
