//! `innkeeper check`

use serde::Serialize;

use super::{CliError, Exit, Global, Report, one_by_one, visible};
use crate::check::complaints;
use crate::config::{Config, ConfigError, ConfigErrors};
use crate::engine::registry::Registry;
use crate::engine::store_options;
use crate::interfaces::db::Databases;
use crate::interfaces::db::privileges::{self, Inspection};
use crate::runtime::Runtime;
use crate::store::{Store, StoreError, StoreOptions};

/// Validate the file, its plugins, handlers, arguments, schedules and the plugins' logins.
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
    warnings: Vec<Complaint>,
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
    let runtime =
        Runtime::new(1, config.largest_memory()).map_err(|error| CliError::usage(format!("{error:#}")))?;
    let (plugins, problems) = Registry::load(&config, &runtime, &databases).await;
    let mut errors = complaints(&config, &plugins, &problems);
    let mut logins = Inspection::default();
    if errors.is_empty() && !command.offline {
        logins = privileges::inspect(&config).await;
        errors.append(ConfigErrors::new(logins.errors));
    }
    let warnings = ConfigErrors::new(logins.warnings);
    if !global.json {
        for warning in warnings.iter() {
            eprintln!("warning: {}", visible(&warning.to_string()));
        }
    }
    if !errors.is_empty() {
        if !global.json {
            return Err(errors.into());
        }
        return Ok(refused(plugin_count, job_count, &errors, &warnings));
    }
    if !command.offline {
        reach(&config, &databases, logins.unreachable).await?;
    }
    let text = format!(
        "{} is in order: {plugin_count} plugin{}, {job_count} job{}.",
        global.config.display(),
        if plugin_count == 1 { "" } else { "s" },
        if job_count == 1 { "" } else { "s" },
    );
    let checked = Checked {
        ok: true,
        plugins: plugin_count,
        jobs: job_count,
        errors: Vec::new(),
        warnings: complaints_of(&warnings),
    };
    Ok(Report::new(&checked, text))
}

/// Connects to the store and to every database, and changes nothing. `logins` are those that
/// could not be used.
async fn reach(config: &Config, databases: &Databases, logins: Vec<ConfigError>) -> Result<(), CliError> {
    let mut unreachable = Vec::new();
    let options = StoreOptions { max_connections: 1, ..store_options(config) };
    match Store::connect(&config.store.url, &options).await {
        Ok(store) => {
            // `serve` migrates what is older, and says what its login may not do.
            if let Err(error @ (StoreError::TooOld { .. } | StoreError::Corrupt(_))) =
                store.check_schema().await
            {
                unreachable.push(format!("{}: {error}", config.location_of_store()));
            }
            store.close().await;
        }
        // `serve` makes the file.
        Err(StoreError::NotMigrated(_)) => {}
        Err(error) => unreachable.push(format!("{}: {error}", config.location_of_store())),
    }
    for database in databases.iter() {
        if let Err(error) = database.check().await {
            unreachable.push(format!("{}: {error}", config.location_of_database(database.name())));
        }
    }
    unreachable.extend(logins.iter().map(ToString::to_string));
    if unreachable.is_empty() { Ok(()) } else { Err(CliError::unreachable(one_by_one(unreachable))) }
}

fn refused(plugins: usize, jobs: usize, errors: &ConfigErrors, warnings: &ConfigErrors) -> Report {
    let (text, warnings) = (errors.to_string(), complaints_of(warnings));
    let checked = Checked { ok: false, plugins, jobs, errors: complaints_of(errors), warnings };
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
