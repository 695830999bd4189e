//! For the programs of this package: being asked to stop.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGINT or SIGTERM, and returns the exit code that shells expect after it. Whoever
/// then drops what it was doing takes its hosts and servers with it.
pub async fn interrupted() -> ExitCode {
    tokio::select! {
        () = arrives(SignalKind::interrupt()) => ExitCode::from(130),
        () = arrives(SignalKind::terminate()) => ExitCode::from(143),
    }
}

async fn arrives(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}
