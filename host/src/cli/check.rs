//! `innkeeper check`

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::grants::{Granted, Grants};
use super::{CliError, Exit, Global, Report, one_by_one, visible};
use crate::check::difference::{Difference, Stored};
use crate::check::durations::{self, Taken};
use crate::check::{complaints, warnings};
use crate::clock;
use crate::config::{Config, ConfigError, ConfigErrors, Location};
use crate::engine::registry::Registry;
use crate::engine::store_options;
use crate::execution::State;
use crate::interfaces::db::Databases;
use crate::interfaces::db::privileges::{self, Inspection};
use crate::job::Name;
use crate::policy::Queue;
use crate::runtime::{Cache, CompileIn, Compiler, Runtime, capacity_warnings};
use crate::store::{ExecutionFilter, QueueRecord, Rollback, Store, StoreError, StoreOptions};

/// Validate the file, its plugins, handlers, arguments, schedules and the plugins' logins.
///
/// Warns of what is right, but hardly meant: jobs that fire all at once or more often than they take, clock changes
/// that touch a job, concurrency that no pool can serve. Warnings do not change the exit code.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// Look at the file and the components only, and connect to no database.
    #[arg(long)]
    offline: bool,
    /// Show what `serve` would change in the store's jobs and queues; exit with 1 if anything.
    #[arg(long, conflicts_with = "offline")]
    against_store: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Checked {
    ok: bool,
    plugins: usize,
    jobs: usize,
    errors: Vec<Complaint>,
    warnings: Vec<Complaint>,
    /// By plugin; where the file is in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    grants: Option<BTreeMap<String, Grants>>,
    /// With `--against-store`.
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<Difference>,
}

#[derive(Serialize)]
struct Complaint {
    file: String,
    line: usize,
    column: usize,
    message: String,
}

pub(super) async fn run(global: &Global, command: &Check) -> Result<Report, CliError> {
    let config = match Config::load(&global.config) {
        Ok(config) => config,
        Err(errors) if global.json => return Ok(refused(0, 0, &errors, &ConfigErrors::default())),
        Err(errors) => return Err(errors.into()),
    };
    let (plugin_count, job_count) = (config.plugins.len(), config.jobs.len());
    let databases = Databases::open(&config.databases);
    let runtime = Runtime::new(1, config.largest_memory())
        .map_err(|error| CliError::usage(format!("{error:#}")))?
        .with_compiler(compiler(&config));
    let (plugins, problems) = Registry::load(&config, &runtime, &databases).await;
    let mut errors = complaints(&config, &plugins, &problems);
    let mut logins = Inspection::default();
    if errors.is_empty() && !command.offline {
        logins = privileges::inspect(&config).await;
        errors.append(ConfigErrors::new(logins.errors));
    }
    let mut found = ConfigErrors::new(logins.warnings);
    let mut met = Met::default();
    if errors.is_empty() {
        found.append(warnings(&config, clock::now()));
        found.append(ConfigErrors::new(capacity(&config)));
        if !command.offline {
            met = meet(&config, &databases, &plugins, command.against_store).await;
            met.unreachable.extend(logins.unreachable.iter().map(ToString::to_string));
            found.append(ConfigErrors::new(met.warnings));
        }
    }
    if !global.json {
        for warning in found.iter() {
            eprintln!("warning: {}", visible(&warning.to_string()));
        }
    }
    if !errors.is_empty() {
        if !global.json {
            return Err(errors.into());
        }
        return Ok(refused(plugin_count, job_count, &errors, &found));
    }
    if !met.unreachable.is_empty() {
        return Err(CliError::unreachable(one_by_one(met.unreachable)));
    }
    let is_different = met.difference.as_ref().is_some_and(|difference| !difference.is_empty());
    let text = in_order(&config, met.difference.as_ref());
    let checked = Checked {
        ok: true,
        plugins: plugin_count,
        jobs: job_count,
        errors: Vec::new(),
        warnings: complaints_of(&found),
        grants: Some(
            config.plugins.iter().map(|(name, plugin)| (name.to_string(), Grants::of(plugin))).collect(),
        ),
        difference: met.difference,
    };
    let exit = if is_different { Exit::DIFFERENT } else { Exit::Done };
    Ok(Report { exit, ..Report::new(&checked, text) })
}

/// What a configuration without errors grants, that it is in order, and what it would change.
fn in_order(config: &Config, difference: Option<&Difference>) -> String {
    let text = format!(
        "{}{} is in order: {}, {}.",
        Granted(config),
        config.path.display(),
        counted(config.plugins.len(), "plugin"),
        counted(config.jobs.len(), "job")
    );
    match difference {
        Some(difference) if !difference.is_empty() => {
            format!("{text}\nStarted with it, this host would change the store:\n{difference}")
        }
        Some(_) => format!("{text}\nThe store has the same jobs and queues."),
        None => text,
    }
}

/// What this machine has not the memory for.
fn capacity(config: &Config) -> Vec<ConfigError> {
    let location = config.location_of_concurrency().unwrap_or_else(|| Location::whole(&config.path));
    capacity_warnings(config.host.concurrency, config.largest_memory())
        .into_iter()
        .map(|message| ConfigError { location: location.clone(), message })
        .collect()
}

/// Uses the folder of compiled code where there is one, and makes none: a check changes nothing.
fn compiler(config: &Config) -> Compiler {
    let compiler = Compiler::new(CompileIn::this_program());
    let folder = config.compiled_folder();
    if folder.is_dir() {
        compiler.with_cache(Cache::new(folder, config.host.compiled_cache))
    } else {
        compiler
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What the store and the databases say.
#[derive(Default)]
struct Met {
    unreachable: Vec<String>,
    warnings: Vec<ConfigError>,
    difference: Option<Difference>,
}

/// Connects to the store and to every database, and changes nothing.
async fn meet(config: &Config, databases: &Databases, plugins: &Registry, against_store: bool) -> Met {
    let mut met = Met::default();
    let options = StoreOptions { max_connections: 1, ..store_options(config) };
    let asked = match Store::connect(&config.store.url, &options).await {
        Ok(store) => {
            let asked = ask(config, &store, plugins, against_store, &mut met).await;
            store.close().await;
            asked
        }
        Err(error) => Err(error),
    };
    match asked {
        Ok(()) => {}
        // `serve` makes it.
        Err(StoreError::NotMigrated(_)) => {
            met.difference = against_store.then(|| Difference::new(config, &[], &[]));
        }
        // `serve` migrates what is older.
        Err(StoreError::Behind { .. }) if !against_store => {}
        Err(error) => met.unreachable.push(format!("{}: {error}", config.location_of_store())),
    }
    for database in databases.iter() {
        if let Err(error) = database.check().await {
            met.unreachable.push(format!("{}: {error}", config.location_of_database(database.name())));
        }
    }
    met
}

async fn ask(
    config: &Config,
    store: &Store,
    plugins: &Registry,
    against_store: bool,
    met: &mut Met,
) -> Result<(), StoreError> {
    match store.check_schema().await {
        Ok(()) => {}
        // A login that may not look, for one: `serve` says so.
        Err(error) if !against_store && !tells_of_schema(&error) => return Ok(()),
        Err(error) => return Err(error),
    }
    if against_store {
        let (jobs, queues) = (store.jobs().await?, store.queues().await?);
        let jobs = jobs.iter().filter(|record| record.retired_at.is_none());
        let jobs: Vec<_> =
            jobs.map(|record| Stored { definition: &record.job, owner: record.owner.clone() }).collect();
        let queues: Vec<_> = queues.into_iter().map(as_defined).collect();
        met.difference = Some(Difference::new(config, &jobs, &queues));
    }
    let now = clock::now();
    met.warnings = rollback_warnings(config, plugins, &store.rollbacks().await?);
    met.warnings.extend(durations::warnings(config, now, &history(config, store, now).await));
    Ok(())
}

/// Which plugins a host would not run as the configuration names them.
fn rollback_warnings(config: &Config, plugins: &Registry, rollbacks: &[Rollback]) -> Vec<ConfigError> {
    let is_in_force = |rollback: &&Rollback| {
        let plugin = plugins.get(&rollback.plugin);
        plugin.is_some_and(|plugin| plugin.configured.as_str() == rollback.replaces)
    };
    let warning = |rollback: &Rollback| {
        let Rollback { plugin, component, replaces, since, .. } = rollback;
        ConfigError {
            location: config.location_of_plugin(plugin),
            message: format!(
                "plugin `{plugin}` has been rolled back since {since}: hosts run {component} in place of {replaces}, \
                 and what was checked here is the latter; `innkeeper plugin reload {plugin} --end-rollback` ends that"
            ),
        }
    };
    rollbacks.iter().filter(is_in_force).map(warning).collect()
}

fn as_defined(record: QueueRecord) -> Stored<Queue> {
    let QueueRecord { name, owner, weight, total_limit, host_limit, .. } = record;
    Stored { definition: Queue { name, weight, limit: total_limit, limit_per_host: host_limit }, owner }
}

fn tells_of_schema(error: &StoreError) -> bool {
    use StoreError::{Behind, Corrupt, NotMigrated, TooOld};
    matches!(error, NotMigrated(_) | Behind { .. } | TooOld { .. } | Corrupt(_))
}

/// How long jobs took lately. What cannot be read, or not soon, is left out: it is no more than a
/// hint.
async fn history(config: &Config, store: &Store, now: Timestamp) -> BTreeMap<Name, Taken> {
    const MOST_TIME: Duration = Duration::from_secs(5);
    const MOST_EXECUTIONS: u32 = 20;
    let mut history = BTreeMap::new();
    let read = async {
        for job in durations::worth_a_look(config, now) {
            let filter = ExecutionFilter {
                job: Some(job.clone()),
                state: Some(State::Succeeded),
                before: None,
                limit: MOST_EXECUTIONS,
            };
            // A job that is new is unknown.
            let Ok(executions) = store.executions(&filter).await else { continue };
            let took = |from: Option<Timestamp>, to: Option<Timestamp>| {
                Duration::try_from(from?.duration_until(to?)).ok()
            };
            let times =
                executions.iter().filter_map(|execution| took(execution.started_at, execution.finished_at));
            if let Some(taken) = Taken::of(times.collect()) {
                history.insert(job, taken);
            }
        }
    };
    let _ = tokio::time::timeout(MOST_TIME, read).await;
    history
}

fn refused(plugins: usize, jobs: usize, errors: &ConfigErrors, warnings: &ConfigErrors) -> Report {
    let (text, warnings) = (errors.to_string(), complaints_of(warnings));
    let checked = Checked {
        ok: false,
        plugins,
        jobs,
        errors: complaints_of(errors),
        warnings,
        grants: None,
        difference: None,
    };
    Report { exit: Exit::Usage, ..Report::new(&checked, text) }
}

fn complaints_of(errors: &ConfigErrors) -> Vec<Complaint> {
    let complaint = |error: &ConfigError| Complaint {
        file: error.location.file.display().to_string(),
        line: error.location.line,
        column: error.location.column,
        message: error.message.clone(),
    };
    errors.iter().map(complaint).collect()
}
