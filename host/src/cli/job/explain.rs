//! `innkeeper job explain`: what a job is configured to do, in plain English, and why it is not
//! running right now.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cli::{CliError, Report};
use crate::config::Config;
use crate::execution::State;
use crate::job::Name;
use crate::store::{ExecutionFilter, HostFilter, JobRecord, LastExecution, Store};
use now::Scene;
use plugin_limit::PluginLook;

mod now;
mod plugin_limit;
mod rules;

/// Holders that are named in a sentence.
const NAMED: usize = 3;

/// One thing that an operator may want to know: as a sentence, and its parts for `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Fact {
    /// What it is about: a fixed word.
    about: &'static str,
    text: String,
    #[serde(flatten)]
    parts: Map<String, Value>,
}

impl Fact {
    fn new(about: &'static str, text: impl Into<String>) -> Self {
        Self { about, text: text.into(), parts: Map::new() }
    }

    fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.parts.insert(name.to_owned(), serde_json::to_value(value).unwrap_or(Value::Null));
        self
    }
}

/// Executions that are told one by one.
const SHOWN: u32 = 20;

pub(super) async fn explain(store: &Store, name: &Name, config: &Config) -> Result<Report, CliError> {
    let record = store.job(name).await?;
    let now = crate::clock::now();
    let scene = scene(store, &record, config, now).await?;
    let right_now = now::facts(&scene);
    let schedule = rules::schedule(&record, &scene.look);
    let next = rules::next(&record, now).map(|(fire, _)| fire).ok();
    let executions = rules::executions(&record.job, scene.queue.as_ref());
    let follows = rules::follows(&record.job, &scene.look);
    let owner = &record.owner;
    let mut text = format!(
        "Job `{name}` runs handler `{}` of plugin `{}`; host `{owner}` configures it.\n",
        record.job.handler, record.job.plugin
    );
    for (heading, facts) in [
        ("Right now", &right_now),
        ("When it runs", &schedule),
        ("How an execution runs", &executions),
        ("What it has to do with other jobs", &follows),
    ] {
        if !facts.is_empty() {
            text.push_str(&format!("\n{heading}\n"));
            for fact in facts {
                text.push_str(&format!("  - {}\n", fact.text));
            }
        }
    }
    let json = json!({
        "job": name,
        "plugin": record.job.plugin,
        "handler": record.job.handler,
        "owner": owner,
        "next": next,
        "now": right_now,
        "schedule": schedule,
        "executions": executions,
        "follows": follows,
    });
    Ok(Report::new(&json, text))
}

async fn scene<'a>(
    store: &Store,
    record: &'a JobRecord,
    config: &Config,
    now: Timestamp,
) -> Result<Scene<'a>, CliError> {
    let job = &record.job;
    let plugin = match config.plugins.get(&job.plugin).and_then(|plugin| plugin.limits.concurrency) {
        Some(limit) => Some(PluginLook { limit, running: store.running_of_plugin(&job.plugin).await? }),
        None => None,
    };
    let look = store.look_at_job(record).await?;
    let mut queues = store.look_at_queues().await?;
    let queue_name = rules::queue_name(job);
    queues.retain(|queue| queue.queue.name.as_str() == queue_name);
    let running = ExecutionFilter {
        job: Some(job.name.clone()),
        state: Some(State::Running),
        before: None,
        limit: SHOWN,
    };
    let mut upstreams: Vec<(Name, Option<LastExecution>)> = Vec::new();
    for upstream in look.after.iter().filter(|upstream| upstream.succeeded_at.is_none()).take(SHOWN as usize)
    {
        upstreams.push((upstream.name.clone(), store.job(&upstream.name).await?.last));
    }
    Ok(Scene {
        record,
        look,
        queue: queues.pop(),
        hosts: store.hosts(&HostFilter { host: None, ended: 0, executions: 0 }).await?,
        with_plugin: store.live_hosts_with_plugin(&job.plugin).await?,
        running: store.executions(&running).await?,
        upstreams,
        plugin,
        now,
    })
}
