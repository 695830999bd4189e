//! Deletes expired sessions and old audit records, in batches.
//!
//! The README says how to configure it. The parts that need no host are modules of their own:
//! [`table`] is the plugin's configuration and the SQL that follows from it, [`cutoff`] the ways
//! in which a time is stored.

use std::time::{SystemTime, UNIX_EPOCH};

use innkeeper_sdk::db::{self, BeginOptions, ErrorKind};
use innkeeper_sdk::{Context, Failure, config, handler, log};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::table::{AUDIT, SESSIONS, Section, Statements, Table};

pub mod cutoff;
pub mod table;

innkeeper_sdk::plugin!(cleanup_expired_sessions, prune_audit_log);

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// The arguments of `cleanup-expired-sessions`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CleanupArgs {
    /// Keep a session for this many days after it has expired. 0 deletes what has expired.
    #[serde(default)]
    #[schemars(range(max = 36_500))]
    retention_days: u32,
    /// How many rows one transaction deletes.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 100_000))]
    batch_size: u32,
}

/// The arguments of `prune-audit-log`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PruneArgs {
    /// Keep a record for this many days.
    #[schemars(range(min = 1, max = 36_500))]
    retention_days: u32,
    /// How many rows one transaction deletes.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 100_000))]
    batch_size: u32,
}

fn default_batch_size() -> u32 {
    1000
}

/// What a run has done.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The rows deleted.
    deleted: u64,
    /// The transactions in which that was done.
    batches: u64,
    /// False when the run was asked to stop before it was done. What it deleted stays deleted,
    /// and the next run goes on with the rest: nothing has failed.
    complete: bool,
}

/// Deletes the sessions that expired more than `retention_days` ago.
///
/// # Errors
/// Permanent for a configuration that does not fit the database; else as the database says.
#[handler]
pub fn cleanup_expired_sessions(ctx: &Context, args: CleanupArgs) -> Result<Report, Failure> {
    delete_old_rows(ctx, &SESSIONS, args.retention_days, args.batch_size)
}

/// Deletes the audit records that are older than `retention_days`.
///
/// # Errors
/// Permanent for a configuration that does not fit the database; else as the database says.
#[handler]
pub fn prune_audit_log(ctx: &Context, args: PruneArgs) -> Result<Report, Failure> {
    delete_old_rows(ctx, &AUDIT, args.retention_days, args.batch_size)
}

fn delete_old_rows(
    ctx: &Context,
    section: &Section,
    retention_days: u32,
    batch_size: u32,
) -> Result<Report, Failure> {
    let table = Table::from_config(section, &config::all()?)?;
    if table.time_format().needs_postgres() {
        refuse_sqlite(section)?;
    }
    let cutoff = micros(ctx.started_at()) - i64::from(retention_days) * MICROS_PER_DAY;
    let statements = table.statements(cutoff, batch_size);

    let total = count(section, &statements)?;
    let mut report = Report { deleted: 0, batches: 0, complete: false };
    ctx.progress(0, total, "rows deleted");
    while !ctx.cancelled() {
        // A batch that meets the application's own changes in a deadlock is run again.
        let deleted = db::transaction(BeginOptions::default(), |tx| {
            tx.execute(&statements.delete, &statements.delete_params)
        })
        .map_err(|error| explain(section, error))?;
        // A batch that is not full is not yet the last one: others may delete at the same time.
        if deleted == 0 {
            report.complete = true;
            break;
        }
        report.deleted += deleted;
        report.batches += 1;
        ctx.progress(report.deleted, total.map(|total| total.max(report.deleted)), "rows deleted");
    }
    log::info!(deleted = report.deleted, batches = report.batches, complete = report.complete;
        "{}: {} rows deleted", section.name, report.deleted);
    Ok(report)
}

/// The total is only for the progress line, so a table that is too large to count in time is
/// no reason not to clean it up.
fn count(section: &Section, statements: &Statements) -> Result<Option<u64>, Failure> {
    match db::query(&statements.count, &statements.count_params) {
        Ok(rows) => Ok(Some(rows.scalar()?)),
        Err(error) if error.kind() == ErrorKind::Timeout => {
            log::warn!("the rows to delete could not be counted in time: {error}");
            Ok(None)
        }
        Err(error) => Err(explain(section, error)),
    }
}

/// A statement that the database refuses comes of a name or a format in the configuration.
fn explain(section: &Section, error: db::Error) -> Failure {
    if error.kind() == ErrorKind::Statement {
        let section = section.name;
        return Failure::permanent(format!(
            "{error}; do the {section}.* settings in the plugin's configuration fit the table?"
        ));
    }
    error.into()
}

/// SQLite has no type for times and would compare whatever is there as text or as a number,
/// with no error. Only PostgreSQL has a function `version`.
fn refuse_sqlite(section: &Section) -> Result<(), Failure> {
    match db::query("select version()", []) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Statement => Err(Failure::permanent(format!(
            "{}.time_format is for columns of a time type, which SQLite does not have; set it to \"text\", \
             \"seconds\" or \"milliseconds\" in the plugin's configuration",
            section.name
        ))),
        Err(error) => Err(error.into()),
    }
}

/// Microseconds since 1970, for a time that is not before that.
fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
