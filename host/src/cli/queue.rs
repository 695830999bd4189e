//! `innkeeper queue …`

use clap::Subcommand;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::sentence::{count, moment};
use super::table::table;
use super::{CliError, Global, Report};
use crate::job::Name;
use crate::store::{QueueLook, Store};

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// List the queues: their limits, and what they have to do.
    List,
    /// Start nothing of a queue until it is resumed. What runs goes on, and schedules go on firing.
    Pause {
        /// The queue's name.
        queue: Name,
        /// Why, for whoever looks at it later.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Start again what a paused queue has.
    Resume {
        /// The queue's name.
        queue: Name,
    },
}

/// A queue, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Queue {
    name: String,
    weight: u32,
    limit: Option<u32>,
    limit_per_host: Option<u32>,
    running: u64,
    ready: u64,
    waiting: u64,
    paused_at: Option<Timestamp>,
    paused_reason: Option<String>,
}

impl From<QueueLook> for Queue {
    fn from(look: QueueLook) -> Self {
        Self {
            name: look.queue.name.into(),
            weight: look.queue.weight,
            limit: look.queue.total_limit,
            limit_per_host: look.queue.host_limit,
            running: look.running,
            ready: look.ready,
            waiting: look.waiting,
            paused_at: look.paused_at,
            paused_reason: look.paused_reason,
        }
    }
}

pub(super) async fn run(global: &Global, command: QueueCommand) -> Result<Report, CliError> {
    let store = global.open_store().await?;
    match command {
        QueueCommand::List => list(&store).await,
        QueueCommand::Pause { queue, reason } => {
            let before = store.pause_queue(&queue, reason.as_deref()).await?;
            changed(&store, &queue, |look| paused(look, before)).await
        }
        QueueCommand::Resume { queue } => {
            let before = store.resume_queue(&queue).await?;
            // A hint: without it, hosts find what may start now a moment later.
            let _ = store.wake_hosts().await;
            changed(&store, &queue, |look| resumed(look, before)).await
        }
    }
}

async fn list(store: &Store) -> Result<Report, CliError> {
    let looks = store.look_at_queues().await?;
    let limit = |limit: Option<u32>| limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
    let text = table(
        ["QUEUE", "WEIGHT", "LIMIT", "PER HOST", "RUNNING", "READY", "WAITING", "PAUSED"],
        looks.iter().map(|look| {
            let paused = look.paused_at.map(|at| {
                let why = look.paused_reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                format!("since {}{why}", moment(at))
            });
            [
                look.queue.name.to_string(),
                look.queue.weight.to_string(),
                limit(look.queue.total_limit),
                limit(look.queue.host_limit),
                look.running.to_string(),
                look.ready.to_string(),
                look.waiting.to_string(),
                paused.unwrap_or_else(|| "-".to_owned()),
            ]
        }),
    );
    let queues: Vec<Queue> = looks.into_iter().map(Queue::from).collect();
    Ok(Report::new(&json!({ "queues": queues }), text))
}

async fn changed(
    store: &Store,
    name: &Name,
    text: impl FnOnce(&QueueLook) -> String,
) -> Result<Report, CliError> {
    let looks = store.look_at_queues().await?;
    let look = looks.into_iter().find(|look| look.queue.name == *name);
    let look = look.ok_or_else(|| CliError::unreachable(format!("queue `{name}` was removed meanwhile")))?;
    let text = text(&look);
    Ok(Report::new(&Queue::from(look), text))
}

fn paused(look: &QueueLook, before: Option<Timestamp>) -> String {
    let QueueLook { queue, running, ready, .. } = look;
    if let Some(at) = before {
        let why = look.paused_reason.as_ref().map_or_else(String::new, |why| format!(", reason: {why}"));
        return format!("Queue `{}` was paused already, since {}{why}.", queue.name, moment(at));
    }
    let goes_on = match running {
        0 => "Nothing of it runs.".to_owned(),
        1 => "The execution of it that runs goes on to its end.".to_owned(),
        more => format!("The {more} executions of it that run go on to their ends."),
    };
    let waits = if *ready == 0 { String::new() } else { format!(" {} to start.", waits(*ready)) };
    format!(
        "Paused queue `{}`: from now on hosts start nothing of it. {goes_on}{waits}\nSchedules go \
         on firing, and what they fire waits: `innkeeper queue resume {}`.",
        queue.name, queue.name
    )
}

fn resumed(look: &QueueLook, before: Option<Timestamp>) -> String {
    let name = &look.queue.name;
    let Some(at) = before else { return format!("Queue `{name}` was not paused.") };
    let starts = match look.ready {
        0 => "Nothing of it waits to start.".to_owned(),
        ready => format!("{} to start.", waits(ready)),
    };
    format!(
        "Resumed queue `{name}`, which was paused since {at}: hosts start from it within a second. {starts}"
    )
}

fn waits(executions: u64) -> String {
    format!("{} {}", count(executions, "execution"), if executions == 1 { "waits" } else { "wait" })
}
