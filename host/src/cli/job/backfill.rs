//! `innkeeper job backfill`: runs a job for times of its schedule that have passed.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::json;

use crate::cli::period::{Period, When};
use crate::cli::sentence::{count, local};
use crate::cli::table::table;
use crate::cli::{CliError, Report};
use crate::job::Name;
use crate::store::{BackfillFate, Store};

/// Which times, and whether to do anything.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Backfill {
    /// The job's name.
    job: Name,
    /// The first time: RFC 3339, or without an offset in the job's time zone; a date is its first
    /// moment.
    #[arg(long, value_name = crate::cli::period::VALUE)]
    from: When,
    /// Before this time; a date is its last moment.
    #[arg(long, value_name = crate::cli::period::VALUE)]
    until: When,
    /// Only show what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Also for times whose execution has succeeded or has not ended.
    #[arg(long)]
    again: bool,
}

/// A time, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Time {
    utc: Timestamp,
    local: String,
    /// `made`, `would-be-made`, `succeeded` or `unfinished`.
    fate: &'static str,
    execution: Option<String>,
}

pub(super) async fn backfill(store: &Store, command: &Backfill) -> Result<Report, CliError> {
    let Backfill { job: name, from, until, dry_run, again } = command;
    let record = store.job(name).await?;
    let zone = record.job.schedule.as_ref().map_or(TimeZone::UTC, |schedule| schedule.zone().clone());
    let period = Period::new(Some(*from), Some(*until), &zone, Timestamp::MIN)?;
    let until = period.until.unwrap_or(Timestamp::MAX);
    let fates = if *dry_run {
        store.backfill_preview(name, period.from, until, *again).await?
    } else {
        let fates = store.backfill(name, period.from, until, *again).await?;
        let _ = store.wake_hosts().await;
        fates
    };
    let times: Vec<Time> = fates.iter().map(|(at, fate)| time(*at, *fate, &zone)).collect();
    let of = |fate: &str| times.iter().filter(|time| time.fate == fate).count() as u64;
    let made = of("made");
    let json = json!({
        "job": name,
        "from": period.from,
        "until": until,
        "dry_run": dry_run,
        "made": made,
        "times": times,
    });
    if times.is_empty() {
        let text = format!("Job `{name}` has no fire time from {} until {until}.", period.from);
        return Ok(Report::new(&json, text));
    }
    let said = if *dry_run {
        format!("It would make {}; nothing was done (`--dry-run`).", count(of("would-be-made"), "execution"))
    } else {
        format!("Made {}, due now.", count(made, "execution"))
    };
    let paused = match record.paused_at {
        Some(at) if made > 0 => format!(" The job is paused since {at}: they wait until it is resumed."),
        _ => String::new(),
    };
    let left = times.len() as u64 - made - of("would-be-made");
    let left = match left {
        0 => String::new(),
        left => format!(
            " {} left out, since {} execution has succeeded or has not ended; `--again` runs them all the same.",
            if left == 1 { "1 time was".to_owned() } else { format!("{left} times were") },
            if left == 1 { "its" } else { "their" },
        ),
    };
    Ok(Report::new(&json, format!("{}\n{said}{paused}{left}", lines(&times, *dry_run))))
}

fn time(at: Timestamp, fate: BackfillFate, zone: &TimeZone) -> Time {
    let (fate, execution) = match fate {
        BackfillFate::Made(id) => ("made", Some(id)),
        BackfillFate::Missing => ("would-be-made", None),
        BackfillFate::Succeeded(id) => ("succeeded", Some(id)),
        BackfillFate::Unfinished(id) => ("unfinished", Some(id)),
    };
    Time { utc: at, local: local(at, zone), fate, execution: execution.map(|id| id.to_string()) }
}

fn lines(times: &[Time], dry_run: bool) -> String {
    table(
        ["LOCAL", "UTC", if dry_run { "WHAT WOULD BE DONE" } else { "WHAT WAS DONE" }],
        times.iter().map(|time| {
            let id = time.execution.as_deref().unwrap_or_default();
            let what = match time.fate {
                "made" => format!("made execution {id}"),
                "succeeded" => format!("nothing: execution {id} has succeeded"),
                "unfinished" => format!("nothing: execution {id} has not ended"),
                _ => "make an execution".to_owned(),
            };
            [time.local.clone(), time.utc.to_string(), what]
        }),
    )
}
