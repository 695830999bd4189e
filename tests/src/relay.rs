//! A network between a host and its database: an address that can come to mean another server,
//! and that can lose everything without a word.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::host::PATIENCE;

/// Passes connections on to a server.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    target: Mutex<SocketAddr>,
    /// What is the last that the server hears.
    last_words: Mutex<Option<&'static [u8]>>,
    silent: watch::Sender<Silence>,
}

/// What is lost.
#[derive(Clone, Copy, Debug, Default)]
struct Silence {
    /// Connections that are opened now, as well.
    lasts: bool,
    /// How often it has begun. A connection that has lived through a beginning is never heard of
    /// again: whatever stood between has forgotten it.
    begun: u64,
}

impl Relay {
    /// Listens on a port of its own.
    pub async fn to(target: SocketAddr) -> Self {
        Self::at(Ipv4Addr::LOCALHOST, target).await
    }

    /// The same at another address of this machine.
    pub async fn at(place: Ipv4Addr, target: SocketAddr) -> Self {
        let listener = TcpListener::bind((place, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State {
            target: Mutex::new(target),
            last_words: Mutex::default(),
            silent: watch::Sender::new(Silence::default()),
        });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, shared.clone()));
            }
        });
        Self { address, state }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that are opened from now on lead there.
    pub fn redirect(&self, target: SocketAddr) {
        *self.state.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Loses everything from now on, in both directions, and closes nothing.
    pub fn silence(&self) {
        self.state.silence();
    }

    /// The same from the next message to the server on that has this in it. The server gets it,
    /// and its answer is lost.
    pub fn silence_after(&self, words: &'static str) {
        *self.state.last_words() = Some(words.as_bytes());
    }

    /// Waits until it is silent.
    pub async fn until_silent(&self) {
        let mut silent = self.state.silent.subscribe();
        let fallen = tokio::time::timeout(PATIENCE, silent.wait_for(|silence| silence.lasts)).await;
        assert!(fallen.is_ok(), "the last words were not said");
    }

    /// Passes connections on that are opened from now on.
    pub fn restore(&self) {
        self.state.silent.send_modify(|silence| silence.lasts = false);
    }
}

impl State {
    fn silence(&self) {
        self.silent.send_modify(|silence| {
            silence.lasts = true;
            silence.begun += 1;
        });
    }

    fn last_words(&self) -> MutexGuard<'_, Option<&'static [u8]>> {
        self.last_words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether these are the words after which the network falls silent. It does so once.
    fn are_last(&self, message: &[u8]) -> bool {
        let mut last = self.last_words();
        let found = last.is_some_and(|words| message.windows(words.len()).any(|part| part == words));
        if found {
            *last = None;
        }
        found
    }
}

async fn connect(client: TcpStream, state: Arc<State>) {
    let now = *state.silent.borrow();
    if now.lasts {
        keep(client).await;
        return;
    }
    let target = *state.target.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(server) = TcpStream::connect(target).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let there = tokio::spawn(pass(from_client, to_server, state.clone(), now.begun, true));
    let back = tokio::spawn(pass(from_server, to_client, state, now.begun, false));
    let _ = tokio::join!(there, back);
}

/// Passes on what comes, until the end or until the network falls silent.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: Arc<State>,
    begun: u64,
    is_to_server: bool,
) {
    let mut silent = state.silent.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let fallen_silent = async { silent.wait_for(|silence| silence.begun != begun).await.map(drop) };
        let read = tokio::select! {
            biased;
            _ = fallen_silent => return keep((from, to)).await,
            read = from.read(&mut buffer) => read,
        };
        let Ok(length @ 1..) = read else { return };
        // Before it is passed on: the answer may be quick.
        if is_to_server && state.are_last(&buffer[..length]) {
            state.silence();
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// Open for as long as the test runs: not even an end comes through.
async fn keep<T>(_connection: T) {
    std::future::pending().await
}
