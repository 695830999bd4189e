//! How the host stops what runs on a server process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::options;
use crate::interfaces::db::work::PATIENCE;

/// How long a connection that was kept may take for an answer. Less than [`PATIENCE`], so that
/// a fresh one can still be tried while somebody waits for the effect.
const KEPT_PATIENCE: Duration = Duration::from_millis(500);

/// What stops a server process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::interfaces::db) enum Signal {
    /// Its statement ends with an error.
    Cancel,
    /// The process ends.
    Terminate,
}

/// Connections of the host's own to a plugins' database, only to stop what runs on others, and to
/// raise the fence. They do not count toward the pool, since they are needed most when the pool is
/// used up.
#[derive(Debug)]
pub(in crate::interfaces::db) struct Control {
    url: String,
    connection: Mutex<Option<PgConnection>>,
    /// Another one, to raise the fence: it may wait, and stopping must not.
    pub(super) fence: Mutex<Option<PgConnection>>,
    /// The server can look whether its clients are still there.
    checks_clients: AtomicBool,
}

impl Control {
    pub(in crate::interfaces::db) fn new(url: String) -> Self {
        Self {
            url,
            connection: Mutex::default(),
            fence: Mutex::default(),
            checks_clients: AtomicBool::new(true),
        }
    }

    /// The login.
    pub(in crate::interfaces::db) fn url(&self) -> &str {
        &self.url
    }

    /// False once [`Self::never_check_clients`] was called.
    pub(super) fn checks_clients(&self) -> bool {
        self.checks_clients.load(Ordering::Relaxed)
    }

    /// Remembers that the server does not take the setting.
    pub(super) fn never_check_clients(&self) {
        self.checks_clients.store(false, Ordering::Relaxed);
    }

    /// Sends the signal, over a connection that is kept for the next time. False where it could
    /// not be sent. It takes no longer than twice [`PATIENCE`], and whoever waits behind it
    /// waits no longer either: a connection that does not answer is hung up on.
    pub(in crate::interfaces::db) async fn signal(&self, signal: Signal, pid: i32) -> bool {
        let sent = timeout(PATIENCE * 2, async {
            let mut kept = self.connection.lock().await;
            // A connection that was kept may have died since; a fresh one has not.
            if let Some(connection) = kept.take() {
                *kept = within(KEPT_PATIENCE, send(connection, signal, pid)).await;
            }
            if kept.is_none() {
                let fresh = async {
                    let options = options(&self.url, "innkeeper control")?;
                    send(options.connect().await?, signal, pid).await
                };
                *kept = within(PATIENCE, fresh).await;
            }
            kept.is_some()
        });
        let sent = sent.await.unwrap_or(false);
        if !sent {
            tracing::warn!(pid, ?signal, "a statement could not be stopped");
        }
        sent
    }

    /// Hangs up.
    pub(in crate::interfaces::db) async fn close(&self) {
        let closing = timeout(PATIENCE, async {
            for kept in [&self.connection, &self.fence] {
                if let Some(connection) = kept.lock().await.take() {
                    connection.close().await?;
                }
            }
            Ok::<(), sqlx::Error>(())
        });
        // The server notices a connection that ends without a word just as well.
        let _closed = closing.await;
    }
}

/// Sends the signal, and gives the connection back.
async fn send(mut connection: PgConnection, signal: Signal, pid: i32) -> Result<PgConnection, sqlx::Error> {
    let sql = match signal {
        Signal::Cancel => "SELECT pg_catalog.pg_cancel_backend($1)",
        Signal::Terminate => "SELECT pg_catalog.pg_terminate_backend($1)",
    };
    sqlx::query(sql).bind(pid).execute(&mut connection).await?;
    Ok(connection)
}

/// The connection, unless it failed or took longer than `limit`.
async fn within(
    limit: Duration,
    sent: impl Future<Output = Result<PgConnection, sqlx::Error>>,
) -> Option<PgConnection> {
    match timeout(limit, sent).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the connection that stops statements failed");
            None
        }
        Err(_elapsed) => {
            tracing::debug!(?limit, "the connection that stops statements does not answer");
            None
        }
    }
}
