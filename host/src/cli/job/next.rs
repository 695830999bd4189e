//! `innkeeper job next`: when a job fires, from what the store says and the evaluator that fires.

use jiff::Timestamp;
use serde_json::json;

use super::firing;
use super::missed::{Missed, missed};
use crate::cli::fires::{FireTime, Wanted, cut, fires, lines};
use crate::cli::sentence::span;
use crate::cli::{CliError, Report};
use crate::job::Name;
use crate::schedule::Schedule;
use crate::store::{JobRecord, Store};

pub(super) async fn next(store: &Store, name: &Name, wanted: &Wanted) -> Result<Report, CliError> {
    let record = store.job(name).await?;
    let schedule = match firing(&record) {
        Ok(schedule) => schedule,
        Err(why) => return Ok(no_fires(name, &why)),
    };
    let now = crate::clock::now();
    let period = wanted.period(schedule.zone(), now)?;
    let count = wanted.count();
    // What is due already belongs to now, not to a period that somebody asks for.
    let missed = if wanted.from.is_none() { missed(&record, schedule, now) } else { Missed::default() };
    let mut known = missed.run;
    let mut more = false;
    match schedule.every_after() {
        None => {
            let later = fires(schedule, period, count.saturating_sub(known.len()));
            more = later.1;
            known.extend(later.0);
        }
        Some(_) if known.is_empty() => match paced(&record, schedule) {
            Ok(fire) => known.push(fire),
            Err(why) => return Ok(no_fires(name, &why)),
        },
        Some(_) => {}
    }
    known.truncate(count);
    let reason = known.is_empty().then(|| none_left(schedule, period.from, period.until));
    let mut text = match &reason {
        Some(why) => format!("Job `{name}` does not fire: {why}.\n"),
        None => lines(&known, schedule.zone()),
    };
    if more && period.until.is_some() {
        text.push_str(&cut(count));
    }
    if let Some(skipped) = &missed.skipped {
        text.push_str(&format!("\n{}\n", skipped.text()));
    }
    let json = json!({ "job": name, "fires": known, "reason": reason, "skipped": missed.skipped });
    Ok(Report::new(&json, text))
}

/// The one fire that is known of a schedule that counts from the last end.
pub(super) fn paced(record: &JobRecord, schedule: &Schedule) -> Result<FireTime, String> {
    let every = schedule.every_after().map(span).unwrap_or_default();
    let Some(at) = record.next_fire_at else {
        return Err(match record.last {
            Some(last) if !last.state.is_final() => {
                format!(
                    "it fires {every} after the end of its execution {}, which is {}",
                    last.id,
                    last.state.as_str()
                )
            }
            _ => none_left(schedule, Timestamp::MIN, None),
        });
    };
    let note = format!("then {every} after the end of that execution");
    Ok(FireTime::at(at, schedule.zone(), Some(note)))
}

/// Why there is no fire time any more.
pub(super) fn none_left(schedule: &Schedule, from: Timestamp, until: Option<Timestamp>) -> String {
    let spec = schedule.spec();
    match (until, spec.not_after, spec.at) {
        (Some(until), ..) => format!("it has no fire time from {from} until {until}"),
        (None, Some(not_after), _) => {
            format!("no fire time is left: `not_after` is {not_after}")
        }
        (None, None, Some(at)) => format!("no fire time is left: it was to fire once, at {at}"),
        (None, None, None) => "no fire time is left".to_owned(),
    }
}

fn no_fires(name: &Name, why: &str) -> Report {
    Report::new(
        &json!({ "job": name, "fires": [], "reason": why, "skipped": null }),
        format!("Job `{name}` does not fire: {why}."),
    )
}
