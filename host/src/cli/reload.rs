//! What `innkeeper host reload`, `plugin reload` and `plugin rollback` have in common: hosts are
//! asked, and their answers waited for. The store is the truth, so it is asked again and again.

use std::time::Instant;

use serde_json::{Value, json};

use super::grace::{Grace, POLL, Trouble, patience};
use super::{CliError, Exit, Report};
use crate::store::{HostFilter, HostRecord, HostState, ReloadAsked, ReloadWish, Store, StoreError};
use crate::suggest;

/// Asks the live hosts, or the one of this name; `before` is what there is to say besides. Without
/// `wait` it is done when they are asked.
pub(super) async fn reload(
    store: &Store,
    wish: &ReloadWish,
    host: Option<&str>,
    wait: bool,
    before: &str,
) -> Result<Report, CliError> {
    let asked = store.request_reload(wish, host).await?;
    if asked.is_empty() {
        return Err(nobody(store, wish, host).await?);
    }
    answers(store, &asked, wait, before).await
}

/// The answers of the hosts that were asked.
pub(super) async fn answers(
    store: &Store,
    asked: &[i64],
    wait: bool,
    before: &str,
) -> Result<Report, CliError> {
    let reloads = store.reloads(asked).await?;
    let lines = lines(reloads.iter().map(|reload| format!("Asked host `{}` to load anew.", reload.host)));
    if !wait {
        let text = format!(
            "{before}{lines}\nIt does so with its next heartbeat; its log, or `--wait`, tells how that goes."
        );
        return Ok(Report::new(&json!({ "hosts": documents(&reloads) }), text));
    }
    eprintln!("{before}{lines}\nwaiting for the answer");
    let reloads = wait_for_all(store, asked).await?;
    let text = self::lines(reloads.iter().map(answer));
    let mut report = Report::new(&json!({ "hosts": documents(&reloads) }), text);
    report.exit = if reloads.iter().any(|reload| reload.done_at.is_none()) {
        Exit::Unreachable
    } else if reloads.iter().any(|reload| reload.error.is_some()) {
        Exit::REFUSED
    } else {
        Exit::Done
    };
    Ok(report)
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

fn answer(reload: &ReloadAsked) -> String {
    let host = &reload.host;
    match (&reload.error, reload.done_at) {
        (Some(error), _) => {
            format!(
                "Host `{host}` has not reloaded, and everything is as it was there:\n  {}",
                error.replace('\n', "\n  ")
            )
        }
        (None, Some(_)) => format!("Host `{host}` has reloaded."),
        (None, None) => format!("Host `{host}` ended before it had reloaded."),
    }
}

fn documents(reloads: &[ReloadAsked]) -> Vec<Value> {
    let document = |reload: &ReloadAsked| {
        let state = match (&reload.error, reload.done_at) {
            (Some(_), _) => "refused",
            (None, Some(_)) => "reloaded",
            (None, None) if reload.is_alive => "asked",
            (None, None) => "ended",
        };
        json!({ "host": reload.host, "state": state, "done_at": reload.done_at, "error": reload.error })
    };
    reloads.iter().map(document).collect()
}

/// Waits until every host has answered or ended.
async fn wait_for_all(store: &Store, asked: &[i64]) -> Result<Vec<ReloadAsked>, CliError> {
    let mut grace = Grace::default();
    loop {
        match store.reloads(asked).await {
            Ok(reloads) if reloads.iter().all(|reload| reload.done_at.is_some() || !reload.is_alive) => {
                return Ok(reloads);
            }
            Ok(_) => grace = Grace::default(),
            Err(StoreError::Unavailable(why)) => match grace.note(Instant::now()) {
                Trouble::New => eprintln!("{}", patience(&format!("the store does not answer: {why}"))),
                Trouble::Going => {}
                Trouble::TooLong => {
                    return Err(CliError::unreachable(format!(
                        "the store does not answer: {why}. No longer waiting; the logs of the hosts tell"
                    )));
                }
            },
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Nobody could be asked: why.
async fn nobody(store: &Store, wish: &ReloadWish, host: Option<&str>) -> Result<CliError, CliError> {
    let mut live = store.hosts(&HostFilter { host: None, ended: 0, executions: 0 }).await?;
    live.retain(|host| host.state == HostState::Active);
    if let ReloadWish::Plugin(plugin) = wish {
        let has_it = store.live_hosts_with_plugin(plugin).await?;
        if has_it.is_empty() {
            let plugins = store.plugins().await?;
            let hint = suggest::hint(plugin.as_str(), plugins.iter().map(|plugin| plugin.name.as_str()));
            return Ok(CliError::usage(format!("no live host has a plugin `{plugin}`{hint}")));
        }
    }
    let Some(name) = host else {
        return Ok(CliError::usage(match live.first() {
            None => "there are no live hosts; one that is started later loads everything anyway".to_owned(),
            Some(host) => too_old(host),
        }));
    };
    Ok(CliError::usage(match live.iter().find(|host| host.host == name) {
        Some(host) if !matches!(wish, ReloadWish::Plugin(_)) => too_old(host),
        Some(_) => {
            format!("host `{name}` does not have this plugin, or is of a version that cannot be asked")
        }
        None => {
            let hint = suggest::hint(name, live.iter().map(|host| host.host.as_str()));
            format!("there is no live host `{name}` that does not drain{hint}")
        }
    }))
}

fn too_old(host: &HostRecord) -> String {
    format!(
        "host `{}` is of innkeeper {}, which cannot be asked to load anew: restart it",
        host.host, host.version
    )
}
