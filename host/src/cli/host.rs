//! `innkeeper host …`

use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;

use super::table::table;
use super::{CliError, Global, Report, reload};
use crate::store::{HostFilter, HostRecord, HostState, ReloadWish, Store};
use crate::suggest;
use crate::wire;

mod wait;

/// Executions of a host in text.
const SHOWN: u32 = 5;
/// Executions of a host in JSON: as many as a host can run at once.
const LISTED: u32 = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum HostCommand {
    /// List the hosts and what they run.
    List {
        /// Also those that have ended, the newest first.
        #[arg(long)]
        all: bool,
        /// With `--all`: this many that have ended at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Have a host drain and exit, as SIGTERM does.
    Drain {
        /// The host's name. All of its live sessions are asked.
        name: String,
        /// Wait until it has ended.
        #[arg(long)]
        wait: bool,
    },
    /// Have hosts load their configuration anew, while they run, as SIGHUP does.
    Reload {
        /// The host's name. Default: every live host.
        name: Option<String>,
        /// Wait until the hosts have done it, and tell how it went.
        #[arg(long)]
        wait: bool,
    },
}

pub(super) async fn run(global: &Global, command: HostCommand) -> Result<Report, CliError> {
    let store = global.open_store().await?;
    match command {
        HostCommand::List { all, limit } => list(&store, if all { limit } else { 0 }).await,
        HostCommand::Drain { name, wait } => drain(&store, &name, wait).await,
        HostCommand::Reload { name, wait } => {
            reload::reload(&store, &ReloadWish::Configuration, name.as_deref(), wait, "").await
        }
    }
}

async fn list(store: &Store, ended: u32) -> Result<Report, CliError> {
    let hosts = store.hosts(&HostFilter { host: None, ended, executions: LISTED }).await?;
    let text = if hosts.is_empty() {
        let which = if ended > 0 { "no hosts yet" } else { "no live hosts" };
        format!("There are {which}: `innkeeper serve` starts one.")
    } else {
        describe(&hosts)
    };
    let hosts = hosts.into_iter().map(wire::Host::from).collect::<Vec<_>>();
    Ok(Report::new(&json!({ "hosts": hosts }), text))
}

fn describe(hosts: &[HostRecord]) -> String {
    let at = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let mut text = table(
        ["HOST", "SESSION", "VERSION", "STATE", "RUNNING", "STARTED", "HEARTBEAT", "EXPIRES", "ENDED"],
        hosts.iter().map(|host| {
            [
                host.host.clone(),
                host.session.0.to_string(),
                host.version.clone(),
                host.state.as_str().to_owned(),
                format!("{}/{}", host.running, host.slots.map_or_else(|| "?".to_owned(), |n| n.to_string())),
                host.started_at.to_string(),
                heartbeat(host),
                host.expires_at.to_string(),
                at(host.ended_at),
            ]
        }),
    );
    if hosts.iter().any(|host| host.running > 0) {
        text.push('\n');
        text.push_str(&table(
            ["ON", "SESSION", "EXECUTION", "JOB", "ATTEMPT", "SINCE"],
            hosts.iter().flat_map(executions),
        ));
    }
    text
}

/// How long ago it was, or when, of a session that has ended.
fn heartbeat(host: &HostRecord) -> String {
    match (host.heartbeat_age, host.heartbeat_at) {
        (Some(age), _) => format!("{} ago", humantime::format_duration(Duration::from_secs(age.as_secs()))),
        (None, Some(at)) => at.to_string(),
        (None, None) => "-".to_owned(),
    }
}

/// A few of what a host runs, and how many more there are.
fn executions(host: &HostRecord) -> impl Iterator<Item = [String; 6]> {
    let (name, session) = (&host.host, host.session.0);
    let shown = host.executions.iter().take(SHOWN as usize);
    let more = host.running.saturating_sub(shown.len() as u64);
    let more = (more > 0).then(|| {
        [name.clone(), session.to_string(), format!("and {more} more"), "".into(), "".into(), "".into()]
    });
    let rows = shown.map(move |running| {
        [
            name.clone(),
            session.to_string(),
            running.execution.to_string(),
            running.job.to_string(),
            running.attempt.to_string(),
            running.started_at.to_string(),
        ]
    });
    rows.chain(more)
}

async fn drain(store: &Store, name: &str, wait: bool) -> Result<Report, CliError> {
    let asked = store.request_drain(name).await?;
    let filter = HostFilter { host: Some(name), ended: 0, executions: LISTED };
    let mut sessions = store.hosts(&filter).await?;
    sessions.retain(|host| host.state != HostState::Expired);
    let (asked_of, left) = sessions.iter().partition::<Vec<_>, _>(|host| host.drain_requested_at.is_some());
    let left = left.iter().map(|host| knows_nothing_of_it(host)).collect::<Vec<_>>();
    if asked == 0 && asked_of.is_empty() {
        return Err(match left.first() {
            None => unknown(store, name).await?,
            Some(_) => CliError::unreachable(left.join("; ")),
        });
    }
    let lines = asked_of.iter().map(|host| asked_text(host)).chain(left).collect::<Vec<_>>().join("\n");
    if !wait {
        let text = format!(
            "{lines}\nIt starts nothing new, and exits when what it runs has ended or its `drain_timeout` is over."
        );
        return Ok(report(name, sessions, text));
    }
    eprintln!("{lines}\nwaiting until it has ended");
    let boots = asked_of.iter().map(|host| host.boot_id).collect::<Vec<_>>();
    let ended = wait::wait_for_end(store, name, &boots).await?;
    let text = ended.iter().map(ended_text).collect::<Vec<_>>().join("\n");
    Ok(report(name, ended, text))
}

fn report(name: &str, sessions: Vec<HostRecord>, text: String) -> Report {
    let sessions = sessions.into_iter().map(wire::Host::from).collect::<Vec<_>>();
    Report::new(&json!({ "host": name, "sessions": sessions }), text)
}

fn asked_text(host: &HostRecord) -> String {
    let HostRecord { host: name, session, running, .. } = host;
    let executions = if *running == 1 { "1 execution".to_owned() } else { format!("{running} executions") };
    format!("Asked host `{name}` (session {}) to drain; it runs {executions}.", session.0)
}

fn knows_nothing_of_it(host: &HostRecord) -> String {
    format!(
        "host `{}` (session {}) is of innkeeper {}, which cannot be asked this way: send its process SIGTERM",
        host.host, host.session.0, host.version
    )
}

fn ended_text(host: &HostRecord) -> String {
    let at = host.ended_at.map(|at| format!(" at {at}")).unwrap_or_default();
    format!("Host `{}` (session {}) has drained and ended{at}.", host.host, host.session.0)
}

/// No session of that name is live: why, and which there are.
async fn unknown(store: &Store, name: &str) -> Result<CliError, CliError> {
    let known = store.hosts(&HostFilter { host: Some(name), ended: 1, executions: 0 }).await?;
    if let Some(last) = known.first() {
        let how = match (last.state, last.ended_at) {
            (HostState::Ended, Some(at)) => format!("ended at {at}"),
            _ => format!("expired at {}, without a heartbeat since", last.expires_at),
        };
        return Ok(CliError::usage(format!(
            "host `{name}` has no live session, so there is nothing to drain: its last one {how}"
        )));
    }
    let mut live = store.hosts(&HostFilter { host: None, ended: 0, executions: 0 }).await?;
    live.retain(|host| host.state != HostState::Expired);
    let mut names = live.into_iter().map(|host| host.host).collect::<Vec<_>>();
    names.dedup();
    let there_are = match names.as_slice() {
        [] => "; there are no live hosts".to_owned(),
        [.., _] if names.len() > 20 => "; `innkeeper host list` shows the hosts that there are".to_owned(),
        names => format!("; there are `{}`", names.join("`, `")),
    };
    let hint = suggest::hint(name, names.iter().map(String::as_str));
    Ok(CliError::usage(format!(
        "there is no host `{name}`{}",
        if hint.is_empty() { there_are } else { hint }
    )))
}
