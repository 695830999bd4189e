//! The fire times of all jobs in a period, in their order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::json;

use crate::cli::fires::FireTime;
use crate::cli::job::state_of;
use crate::cli::period::{Period, When};
use crate::cli::sentence::{count, names, zone_name};
use crate::cli::table::table;
use crate::cli::{CliError, Global, Report};
use crate::job::Name;
use crate::schedule::{Fire, Schedule};
use crate::store::JobRecord;
use crate::suggest;

/// A fire time and whose it is.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Line {
    job: Name,
    #[serde(flatten)]
    fire: FireTime,
    #[serde(skip)]
    zone: String,
}

/// A job with a schedule that does not fire at the moment.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Silent {
    job: Name,
    reason: String,
}

pub(super) async fn run(
    global: &Global,
    from: When,
    until: When,
    zone: Option<&str>,
    limit: u32,
) -> Result<Report, CliError> {
    let zone = zone.map_or(Ok(TimeZone::UTC), time_zone)?;
    let period = Period::new(Some(from), Some(until), &zone, Timestamp::MIN)?;
    let records = global.open_store().await?.jobs().await?;
    let (lines, silent, is_complete) = lines(&records, period, limit as usize);
    let text = text(&lines, &silent, period, is_complete);
    let json = json!({
        "from": period.from,
        "until": period.until,
        "fires": lines,
        "complete": is_complete,
        "silent": silent,
    });
    Ok(Report::new(&json, text))
}

fn time_zone(name: &str) -> Result<TimeZone, CliError> {
    TimeZone::get(name).map_err(|_| {
        let known: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let hint = suggest::hint(name, known.iter().map(String::as_str));
        CliError::usage(format!("`{name}` is not an IANA time zone such as `Europe/Berlin`{hint}"))
    })
}

/// The fires of the jobs, merged: work and memory are in proportion to the jobs and the lines.
fn lines(records: &[JobRecord], period: Period, limit: usize) -> (Vec<Line>, Vec<Silent>, bool) {
    let (mut firing, mut silent) = (Vec::new(), Vec::new());
    for record in records {
        match (&record.job.schedule, state_of(record)) {
            (Some(schedule), Ok(())) => firing.push((record, schedule)),
            (Some(_), Err(reason)) if record.retired_at.is_none() => {
                silent.push(Silent { job: record.job.name.clone(), reason });
            }
            _ => {}
        }
    }
    let mut next: Vec<Option<Fire>> =
        firing.iter().map(|(record, schedule)| first(record, schedule, period)).collect();
    let mut order: BinaryHeap<Reverse<(Timestamp, usize)>> = next
        .iter()
        .enumerate()
        .filter_map(|(index, fire)| Some(Reverse((fire.as_ref()?.at, index))))
        .collect();
    let mut lines = Vec::new();
    while let Some(mut earliest) = order.peek_mut() {
        if lines.len() == limit {
            return (lines, silent, false);
        }
        let Reverse((at, index)) = *earliest;
        let (record, schedule) = firing[index];
        let following = schedule
            .every_after()
            .is_none()
            .then(|| schedule.next_fire(at).filter(|fire| period.has(fire.at)))
            .flatten();
        match &following {
            Some(fire) => *earliest = Reverse((fire.at, index)),
            None => drop(PeekMut::pop(earliest)),
        }
        let Some(fire) = std::mem::replace(&mut next[index], following) else { continue };
        let mut time = FireTime::new(&fire, schedule.zone());
        if schedule.every_after().is_some() {
            time.note = Some("later ones count from the end of each execution".to_owned());
        }
        let zone = zone_name(schedule.zone()).to_owned();
        lines.push(Line { job: record.job.name.clone(), fire: time, zone });
    }
    (lines, silent, true)
}

fn first(record: &JobRecord, schedule: &Schedule, period: Period) -> Option<Fire> {
    let fire = match schedule.every_after() {
        // Nobody knows more than the next one.
        Some(_) => Fire { at: record.next_fire_at?, notes: Vec::new() },
        None => schedule.next_fire(period.before())?,
    };
    period.has(fire.at).then_some(fire)
}

fn text(lines: &[Line], silent: &[Silent], period: Period, is_complete: bool) -> String {
    let until = period.until.unwrap_or(Timestamp::MAX);
    let mut text = if lines.is_empty() {
        format!("No job fires from {} until {until}.\n", period.from)
    } else {
        table(
            ["UTC", "LOCAL", "JOB", "NOTE"],
            lines.iter().map(|line| {
                let FireTime { utc, local, note } = line.fire.clone();
                [utc, format!("{local} {}", line.zone), line.job.to_string(), note.unwrap_or_default()]
            }),
        )
    };
    if !is_complete {
        text.push_str(&format!(
            "\nThere are more until {until}: these are the first {}. Give a shorter period, or a higher \
             `--limit`.\n",
            lines.len()
        ));
    }
    if !silent.is_empty() {
        const NAMED: usize = 10;
        let named: Vec<&Name> = silent.iter().take(NAMED).map(|silent| &silent.job).collect();
        let more = silent.len() - named.len();
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        text.push_str(&format!(
            "\n{} not listed, since paused or disabled: {}{more}.\n",
            count(silent.len() as u64, "job"),
            names(&named, "and"),
        ));
    }
    text
}
