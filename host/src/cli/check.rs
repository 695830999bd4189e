//! `innkeeper check`

use serde::Serialize;

use super::{CliError, Exit, Global, Report, one_by_one};
use crate::check::complaints;
use crate::config::{Config, ConfigErrors};
use crate::engine::registry::Registry;
use crate::interfaces::db::Databases;
use crate::runtime::Runtime;
use crate::store::{Store, StoreError, StoreOptions};

/// Validate the file, its plugins, handlers, arguments and schedules.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// Look at the file and the components only, and connect to no database.
    #[arg(long)]
    offline: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Checked {
    ok: bool,
    plugins: usize,
    jobs: usize,
    errors: Vec<Complaint>,
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
        Err(errors) if global.json => return Ok(failed(0, 0, &errors)),
        Err(errors) => return Err(errors.into()),
    };
    let databases = Databases::open(&config.databases);
    let runtime =
        Runtime::new(1, config.largest_memory()).map_err(|error| CliError::usage(format!("{error:#}")))?;
    let (plugins, problems) = Registry::load(&config, &runtime, &databases).await;
    let errors = complaints(&config, &plugins, &problems);
    if !errors.is_empty() {
        if !global.json {
            return Err(errors.into());
        }
        return Ok(failed(config.plugins.len(), config.jobs.len(), &errors));
    }
    if !command.offline {
        reach(&config, &databases).await?;
    }
    let text = format!(
        "{} is in order: {} plugin{}, {} job{}.",
        global.config.display(),
        config.plugins.len(),
        if config.plugins.len() == 1 { "" } else { "s" },
        config.jobs.len(),
        if config.jobs.len() == 1 { "" } else { "s" },
    );
    let checked =
        Checked { ok: true, plugins: config.plugins.len(), jobs: config.jobs.len(), errors: Vec::new() };
    Ok(Report::new(&checked, text))
}

/// Connects to the store and to every database, and changes nothing.
async fn reach(config: &Config, databases: &Databases) -> Result<(), CliError> {
    let mut unreachable = Vec::new();
    let options = StoreOptions { max_connections: 1, ..StoreOptions::default() };
    match Store::connect(&config.store.url, &options).await {
        Ok(store) => store.close().await,
        // `serve` makes the file.
        Err(StoreError::NotMigrated(_)) => {}
        Err(error) => unreachable.push(format!("{}: {error}", config.location_of_store())),
    }
    for database in databases.iter() {
        if let Err(error) = database.check().await {
            unreachable.push(format!("{}: {error}", config.location_of_database(database.name())));
        }
    }
    if unreachable.is_empty() { Ok(()) } else { Err(CliError::unreachable(one_by_one(unreachable))) }
}

fn failed(plugins: usize, jobs: usize, errors: &ConfigErrors) -> Report {
    let complaints = errors
        .iter()
        .map(|error| Complaint {
            file: error.location.file.display().to_string(),
            line: error.location.line,
            column: error.location.column,
            message: error.message.clone(),
        })
        .collect();
    let report = Report::new(&Checked { ok: false, plugins, jobs, errors: complaints }, errors.to_string());
    Report { exit: Exit::Usage, ..report }
}
