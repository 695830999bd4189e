//! Waiting until an execution has ended. The store is the truth, so it is asked again and
//! again.

use std::time::Instant;

use uuid::Uuid;

use crate::cli::CliError;
use crate::cli::grace::{Grace, POLL, Trouble, patience};
use crate::execution::State;
use crate::job::Name;
use crate::store::{ExecutionRecord, Store, StoreError};

/// What one look has found.
enum Seen {
    Ended(Box<ExecutionRecord>),
    Underway,
    /// It cannot end, or nobody can tell.
    Trouble(String),
}

/// Waits for the end, and says on standard error for which execution: whoever stops waiting
/// can look it up.
///
/// # Errors
/// Where no host is left that could run it or the store does not answer, for longer than
/// [`GRACE`](crate::cli::grace::GRACE).
pub(super) async fn wait_for_end(
    store: &Store,
    id: Uuid,
    plugin: &Name,
) -> Result<ExecutionRecord, CliError> {
    eprintln!("enqueued {id}; waiting until it has ended");
    let mut grace = Grace::default();
    loop {
        match look(store, id, plugin).await {
            Ok(Seen::Ended(record)) => return Ok(*record),
            Ok(Seen::Underway) => grace = Grace::default(),
            Ok(Seen::Trouble(why)) => match grace.note(Instant::now()) {
                Trouble::New => eprintln!("{}", patience(&why)),
                Trouble::Going => {}
                Trouble::TooLong => return Err(CliError::unreachable(gave_up(id, &why))),
            },
            Err(error) => {
                let error = CliError::from(error);
                return Err(CliError { message: gave_up(id, &error.message), ..error });
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn look(store: &Store, id: Uuid, plugin: &Name) -> Result<Seen, StoreError> {
    match ask(store, id, plugin).await {
        Err(StoreError::Unavailable(why)) => Ok(Seen::Trouble(format!("the store does not answer: {why}"))),
        other => other,
    }
}

async fn ask(store: &Store, id: Uuid, plugin: &Name) -> Result<Seen, StoreError> {
    // In this order: a host that is gone may have ended it just before.
    let has_host = !store.live_hosts_with_plugin(plugin).await?.is_empty();
    let record = store.execution(id).await?;
    let record = record.ok_or_else(|| StoreError::Corrupt(format!("execution {id} is gone")))?;
    Ok(match record.state {
        state if state.is_final() => Seen::Ended(Box::new(record)),
        _ if has_host => Seen::Underway,
        state => Seen::Trouble(no_host(state, plugin)),
    })
}

fn no_host(state: State, plugin: &Name) -> String {
    format!("the execution is {}, and no live host has plugin `{plugin}` any more", state.as_str())
}

fn gave_up(id: Uuid, why: &str) -> String {
    format!(
        "{why}. No longer waiting for execution {id}: it stays in the store and runs as soon as a host can, and \
         `innkeeper execution show {id}` tells what became of it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_gives_up_is_told_which_execution_it_was() {
        let id = Uuid::now_v7();
        assert!(gave_up(id, "the store does not answer").contains(&format!("execution show {id}")));
    }
}
