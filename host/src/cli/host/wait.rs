//! Waiting until a host has drained and ended. The store is the truth, so it is asked again
//! and again.

use std::time::Instant;

use uuid::Uuid;

use crate::cli::CliError;
use crate::cli::grace::{Grace, POLL, Trouble, patience};
use crate::store::{HostFilter, HostRecord, HostState, Store, StoreError};

/// Sessions of one host that are looked back at.
const LOOKED_BACK: u32 = 100;

/// What one look has found.
enum Seen {
    /// The last session of each process.
    Ended(Vec<HostRecord>),
    Underway,
    /// It cannot end by itself, or nobody can tell.
    Trouble(String),
}

/// Waits until no session of these processes is left, and returns the last one of each. A
/// process that lost its session in the meantime has another one, which was asked to drain as
/// well.
///
/// # Errors
/// Where a host died before it had drained, or the store does not answer for longer than
/// [`GRACE`](crate::cli::grace::GRACE).
pub(super) async fn wait_for_end(
    store: &Store,
    name: &str,
    boots: &[Uuid],
) -> Result<Vec<HostRecord>, CliError> {
    let mut grace = Grace::default();
    loop {
        let filter = HostFilter { host: Some(name), ended: LOOKED_BACK, executions: 0 };
        let seen = match store.hosts(&filter).await {
            Ok(sessions) => judge(sessions, boots),
            Err(StoreError::Unavailable(why)) => Seen::Trouble(format!("the store does not answer: {why}")),
            Err(error) => return Err(error.into()),
        };
        match seen {
            Seen::Ended(sessions) => return Ok(sessions),
            Seen::Underway => grace = Grace::default(),
            Seen::Trouble(why) => match grace.note(Instant::now()) {
                Trouble::New => eprintln!("{}", patience(&why)),
                Trouble::Going => {}
                Trouble::TooLong => {
                    return Err(CliError::unreachable(format!(
                        "{why}. No longer waiting; `innkeeper host list --all` tells what becomes of it"
                    )));
                }
            },
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What has become of the processes, by the last session of each.
fn judge(sessions: Vec<HostRecord>, boots: &[Uuid]) -> Seen {
    let mut last: Vec<HostRecord> = Vec::with_capacity(boots.len());
    for boot in boots {
        let of_boot = sessions.iter().filter(|session| session.boot_id == *boot);
        last.extend(of_boot.max_by_key(|session| session.session).cloned());
    }
    let lost = last.iter().find(|session| session.state == HostState::Expired);
    if last.iter().any(|session| matches!(session.state, HostState::Active | HostState::Draining)) {
        Seen::Underway
    } else if let Some(lost) = lost {
        Seen::Trouble(format!(
            "host `{}` (session {}) gave no sign of life any more before it had drained, and its session expired at \
             {}; what it ran is tried again as after a crash",
            lost.host, lost.session.0, lost.expires_at
        ))
    } else {
        Seen::Ended(last)
    }
}
