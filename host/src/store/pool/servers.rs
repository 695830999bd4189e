//! The servers that a URL names, and which of them is connected to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::time::timeout;

use super::CONNECT_TIMEOUT;
use crate::database_url::Server;
use crate::store::StoreError;

/// One server or several, in the order of the URL.
#[derive(Debug)]
pub(super) struct Servers {
    all: Vec<(Server, PgConnectOptions)>,
    /// The one that was connected to last, which is tried first.
    last: AtomicUsize,
}

impl Servers {
    pub(super) fn new(all: Vec<(Server, PgConnectOptions)>) -> Self {
        Self { all, last: AtomicUsize::new(0) }
    }

    /// The settings of the one that was connected to last.
    pub(super) fn settings(&self) -> PgConnectOptions {
        self.all[self.last.load(Ordering::Relaxed)].1.clone()
    }

    /// Connects to the first that answers and is what the URL asks for.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], with the reason of each where there are several.
    pub(super) async fn connect(&self) -> Result<PgConnection, StoreError> {
        let first = self.last.load(Ordering::Relaxed);
        let mut reasons = Vec::new();
        for at in (0..self.all.len()).map(|n| (first + n) % self.all.len()) {
            let (server, options) = &self.all[at];
            match connect(server, options, CONNECT_TIMEOUT).await {
                Ok(connection) => {
                    self.last.store(at, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(error) if self.all.len() == 1 => return Err(error),
                Err(error) => reasons.push(format!("{}: {error}", server.name)),
            }
        }
        Err(StoreError::Unavailable(format!("none of its servers can be used: {}", reasons.join("; "))))
    }
}

async fn connect(
    server: &Server,
    options: &PgConnectOptions,
    time: Duration,
) -> Result<PgConnection, StoreError> {
    let connecting = async {
        let mut connection = options.connect().await?;
        if !server.must_take_writes {
            return Ok(connection);
        }
        let read_only: String = sqlx::query_scalar("select current_setting('transaction_read_only')")
            .persistent(false)
            .fetch_one(&mut connection)
            .await?;
        if read_only == "off" {
            return Ok(connection);
        }
        Err(StoreError::Unavailable(
            "it takes no writes: it is a standby, or `default_transaction_read_only` is on".to_owned(),
        ))
    };
    timeout(time, connecting)
        .await
        .unwrap_or_else(|_| Err(StoreError::Unavailable(format!("no answer within {time:?}"))))
}
