//! The network between one host and PostgreSQL: it can hold a single message, fall silent, and
//! cut.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::plan::{Direction, Point};
use super::wire::{Dialogue, Messages, Standing};

/// A host's way to PostgreSQL.
pub(super) struct Relay {
    port: u16,
    state: Arc<watch::Sender<State>>,
}

/// What becomes of what was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// It arrives.
    Forward,
    /// Both ends are told that the connection is gone.
    Cut,
}

#[derive(Debug, Default)]
struct State {
    /// Where the next connection that comes by is held.
    armed: Option<Point>,
    /// The connection that is held.
    held: Option<u64>,
    release: Option<(u64, Release)>,
    /// Nothing is passed on to the server, to the host.
    silent: (bool, bool),
    /// Messages, or parts of some, that wait for the silence to end.
    withheld: u64,
    refuses: bool,
    /// Connections with a lower number are cut.
    cut_below: u64,
    cut: BTreeSet<u64>,
    /// The same, where only the server is told.
    cut_from_server_below: u64,
    /// The number of the next connection.
    next: u64,
}

impl Relay {
    /// To the server on this port of this machine.
    pub(super) async fn to(server: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port is free")?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(watch::Sender::new(State::default()));
        tokio::spawn(accept(listener, server, state.clone()));
        Ok(Self { port, state })
    }

    /// Where the host finds it.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Holds the next connection that comes to this point.
    pub(super) fn arm(&self, point: Point) {
        self.state.send_modify(|state| {
            (state.armed, state.held, state.release) = (Some(point), None, None);
        });
    }

    /// Waits until a connection is held.
    pub(super) async fn wait_until_held(&self) {
        self.wait_for(|state| state.held.is_some()).await;
    }

    /// Lets go of what is held, if anything is.
    pub(super) fn release(&self, release: Release) {
        self.state.send_modify(|state| {
            state.armed = None;
            let Some(held) = state.held.take() else { return };
            match release {
                Release::Forward => {}
                Release::Cut => drop(state.cut.insert(held)),
            }
            state.release = Some((held, release));
        });
    }

    /// Falls silent.
    pub(super) fn silence(&self, direction: Direction) {
        self.state.send_modify(|state| {
            state.silent = (direction != Direction::ToHost, direction != Direction::ToServer);
            state.withheld = 0;
        });
    }

    /// Waits until the silence has swallowed something.
    pub(super) async fn wait_until_withheld(&self) {
        self.wait_for(|state| state.withheld > 0).await;
    }

    /// Goes on; what waited arrives late.
    pub(super) fn restore(&self) {
        self.state.send_modify(|state| (state.silent, state.refuses) = ((false, false), false));
    }

    /// Resets every connection.
    pub(super) fn cut_all(&self) {
        self.state.send_modify(|state| {
            state.cut_below = state.next;
            (state.armed, state.held) = (None, None);
        });
    }

    /// The server is told that every connection is gone; the host is not, until the next cut.
    pub(super) fn cut_all_from_server(&self) {
        self.state.send_modify(|state| {
            state.cut_from_server_below = state.next;
            (state.armed, state.held) = (None, None);
        });
    }

    /// Refuses new connections.
    pub(super) fn refuse(&self) {
        self.state.send_modify(|state| state.refuses = true);
    }

    async fn wait_for(&self, condition: impl FnMut(&State) -> bool) {
        // The sender lives as long as `self`.
        let _ = self.state.subscribe().wait_for(condition).await;
    }
}

async fn accept(listener: TcpListener, server: u16, state: Arc<watch::Sender<State>>) {
    while let Ok((host, _)) = listener.accept().await {
        let mut number = None;
        state.send_modify(|state| {
            if !state.refuses {
                number = Some(state.next);
                state.next += 1;
            }
        });
        match number {
            Some(number) => drop(tokio::spawn(carry(host, server, Passage::new(number, state.clone())))),
            None => reset(&host),
        }
    }
}

/// One connection from its beginning to its end.
async fn carry(host: TcpStream, server: u16, passage: Passage) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return reset(&host) };
    let _ = (host.set_nodelay(true), server.set_nodelay(true));
    let (from_host, to_host) = host.into_split();
    let (from_server, to_server) = server.into_split();
    let (mut up, mut down) = (Up { from_host, to_server }, Down { from_server, to_host });
    let is_told = tokio::select! {
        _ = async { tokio::join!(up.run(&passage), down.run(&passage)) } => return,
        () = passage.wait_until_cut() => true,
        () = passage.wait_until_cut_from_server() => false,
    };
    drop((up.to_server, down.from_server));
    if !is_told {
        // Nothing comes any more, and nothing says so.
        passage.wait_until_cut().await;
    }
    reset(up.from_host.as_ref());
}

/// The other end hears at once that the connection is gone.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// What both directions of a connection share.
struct Passage {
    number: u64,
    state: Arc<watch::Sender<State>>,
    dialogue: Mutex<Dialogue>,
    /// The answer that comes next is held.
    holds_answer: Mutex<bool>,
}

impl Passage {
    fn new(number: u64, state: Arc<watch::Sender<State>>) -> Self {
        Self { number, state, dialogue: Mutex::new(Dialogue::new()), holds_answer: Mutex::new(false) }
    }

    fn dialogue(&self) -> std::sync::MutexGuard<'_, Dialogue> {
        self.dialogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds_answer(&self) -> std::sync::MutexGuard<'_, bool> {
        self.holds_answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of a silence.
    async fn wait_while_silent(&self, is_silent: impl Fn(&State) -> bool) {
        if is_silent(&self.state.borrow()) {
            self.state.send_modify(|state| state.withheld += 1);
            let _ = self.state.subscribe().wait_for(|state| !is_silent(state)).await;
        }
    }

    /// True where a connection was to be held at this point, and none is yet.
    fn takes(&self, point: Option<Point>) -> bool {
        let mut taken = false;
        if point.is_some() {
            self.state.send_if_modified(|state| {
                taken = state.armed == point;
                if taken {
                    state.armed = None;
                }
                taken
            });
        }
        taken
    }

    /// Holds the connection until it is released, for ever where it is cut then.
    async fn hold(&self) {
        self.state.send_modify(|state| state.held = Some(self.number));
        let goes_on = |state: &State| state.release == Some((self.number, Release::Forward));
        let _ = self.state.subscribe().wait_for(goes_on).await;
    }

    async fn wait_until_cut(&self) {
        let is_cut = |state: &State| self.number < state.cut_below || state.cut.contains(&self.number);
        let _ = self.state.subscribe().wait_for(is_cut).await;
    }

    async fn wait_until_cut_from_server(&self) {
        let is_cut = |state: &State| self.number < state.cut_from_server_below;
        let _ = self.state.subscribe().wait_for(is_cut).await;
    }
}

struct Up {
    from_host: OwnedReadHalf,
    to_server: OwnedWriteHalf,
}

impl Up {
    /// Until the host hangs up, or the server does; and the server hears of it.
    async fn run(&mut self, passage: &Passage) {
        let _ = self.pass_on(passage).await;
        let _ = self.to_server.shutdown().await;
    }

    async fn pass_on(&mut self, passage: &Passage) -> io::Result<()> {
        let mut messages = Messages::of_client();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = self.from_host.read(&mut buffer).await?;
            passage.wait_while_silent(|state| state.silent.0).await;
            if length == 0 {
                return Ok(());
            }
            messages.push(&buffer[..length]);
            while let Some(message) = messages.next() {
                let Standing { before, after } = passage.dialogue().by_client(&message);
                if passage.takes(before) {
                    passage.hold().await;
                }
                if passage.takes(after) {
                    *passage.holds_answer() = true;
                }
                self.to_server.write_all(&message.bytes).await?;
            }
        }
    }
}

struct Down {
    from_server: OwnedReadHalf,
    to_host: OwnedWriteHalf,
}

impl Down {
    /// Until the server hangs up, or the host does; and the host hears of it.
    async fn run(&mut self, passage: &Passage) {
        let _ = self.pass_on(passage).await;
        passage.wait_while_silent(|state| state.silent.1).await;
        let _ = self.to_host.shutdown().await;
    }

    async fn pass_on(&mut self, passage: &Passage) -> io::Result<()> {
        let mut messages = Messages::of_server();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = self.from_server.read(&mut buffer).await?;
            passage.wait_while_silent(|state| state.silent.1).await;
            if length == 0 {
                return Ok(());
            }
            messages.push(&buffer[..length]);
            while let Some(message) = messages.next() {
                let holds = std::mem::take(&mut *passage.holds_answer());
                if holds {
                    passage.hold().await;
                }
                passage.dialogue().by_server(&message);
                self.to_host.write_all(&message.bytes).await?;
            }
        }
    }
}
