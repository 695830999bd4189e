//! What the evaluator that fires jobs says of the days to come: jobs that fire all at once, and
//! clock changes that touch a job.
//!
//! Pure. The work is bounded, whatever the file: the number of fire times that are computed does
//! not grow with the number of jobs.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

use super::named;
use crate::config::{Config, ConfigError, JobKey};
use crate::job::Job;
use crate::schedule::{Note, Overlap, Schedule, Spec};

/// How far ahead bunches are looked for.
const DAYS: i64 = 7;

/// Fire times in all, and of one job: those that fire more often bunch in the first hours as well.
const MOST_FIRES: usize = 300_000;
const MOST_FIRES_OF_A_JOB: usize = 10_000;

/// Fewer at once are nothing to speak of, however little the host runs at once.
const SMALLEST_BUNCH: usize = 5;

/// Who reads more of one kind will have understood.
const MOST_BUNCHES: usize = 10;
const MOST_WARNINGS: usize = 20;

/// Jobs that a schedule fires, with it.
pub(super) fn firing(config: &Config) -> impl Iterator<Item = (&Job, &Schedule)> {
    config.jobs.values().filter(|job| job.enabled).filter_map(|job| Some((job, job.schedule.as_ref()?)))
}

/// Warns of jobs that fire at the same instant and are more than the host runs at once.
pub(super) fn bunches(config: &Config, now: Timestamp) -> Vec<ConfigError> {
    let jobs: Vec<(&Job, &Schedule)> = firing(config).collect();
    let smallest = SMALLEST_BUNCH.max(config.host.concurrency + 1);
    if jobs.len() < smallest {
        return Vec::new();
    }
    let (mut fires, all) = fires(&jobs, now);
    let mut warnings = Vec::new();
    loop {
        let groups = || fires.chunk_by(|a, b| a.0 == b.0);
        // The first of the largest.
        let Some(bunch) = groups().rev().max_by_key(|group| group.len()) else { break };
        if bunch.len() < smallest {
            break;
        }
        if warnings.len() == MOST_BUNCHES {
            let (first, _) = jobs[bunch[0].1 as usize];
            let message = format!(
                "{} other jobs fire at the same instant as well, and so may more; `innkeeper schedule calendar` \
                 shows all fires of a time",
                bunch.len()
            );
            let location = config.location_of_job(&first.name, JobKey::Schedule);
            warnings.push(ConfigError { location, message });
            break;
        }
        let mut is_in = vec![false; jobs.len()];
        bunch.iter().for_each(|(_, job)| is_in[*job as usize] = true);
        let times = groups().filter(|group| count(group, &is_in) >= smallest).count();
        warnings.push(bunched(config, &jobs, bunch, times, all));
        fires.retain(|(_, job)| !is_in[*job as usize]);
    }
    warnings
}

/// In microseconds, and which job of the list.
type At = (i64, u32);

/// In their order, and whether these are all of the time that is looked at.
fn fires(jobs: &[(&Job, &Schedule)], now: Timestamp) -> (Vec<At>, bool) {
    let until = now.checked_add(SignedDuration::from_hours(24 * DAYS)).unwrap_or(Timestamp::MAX);
    let most = (MOST_FIRES / jobs.len()).clamp(1, MOST_FIRES_OF_A_JOB);
    let (mut fires, mut all) = (Vec::new(), true);
    for (index, (_, schedule)) in (0u32..).zip(jobs) {
        let mut at = now;
        for count in 0.. {
            let Some(next) = schedule.next_after(at).filter(|next| *next <= until) else { break };
            if count == most || fires.len() >= MOST_FIRES {
                all = false;
                break;
            }
            fires.push((next.as_microsecond(), index));
            at = next;
        }
    }
    fires.sort_unstable();
    (fires, all)
}

fn count(group: &[At], is_in: &[bool]) -> usize {
    group.iter().filter(|(_, job)| is_in[*job as usize]).count()
}

fn bunched(
    config: &Config,
    jobs: &[(&Job, &Schedule)],
    bunch: &[At],
    times: usize,
    all: bool,
) -> ConfigError {
    let names: Vec<_> = bunch.iter().map(|(_, job)| &jobs[*job as usize].0.name).collect();
    let (first, schedule) = jobs[bunch[0].1 as usize];
    let at = Timestamp::from_microsecond(bunch[0].0).unwrap_or_default();
    let at = match schedule.zone().iana_name() {
        None | Some("UTC") => at.to_string(),
        Some(_) => at.to_zoned(schedule.zone().clone()).to_string(),
    };
    let often = match (times, all) {
        (1, _) => String::new(),
        (_, true) => format!(", and {times} times within {DAYS} days"),
        (_, false) => format!(", and at least {times} times within {DAYS} days"),
    };
    let message = format!(
        "{} jobs fire at the same instant, first at {at}{often}: {}; this host runs {} at once, and the others \
         wait; spread them with `H` in place of the minute of `cron`, as in `H 2 * * *`, or with `jitter`",
        names.len(),
        named(&names),
        config.host.concurrency,
    );
    ConfigError { location: config.location_of_job(&first.name, JobKey::Schedule), message }
}

/// Warns of fires that a clock change in the year to come leaves out, moves or doubles.
pub(super) fn clock_changes(config: &Config, now: Timestamp) -> Vec<ConfigError> {
    let mut changes: HashMap<String, Vec<Change>> = HashMap::new();
    let (mut warnings, mut more) = (Vec::new(), Vec::new());
    for (job, schedule) in firing(config) {
        let zone = schedule.zone();
        let Some(name) = zone.iana_name() else { continue };
        if !changes.contains_key(name) {
            changes.insert(name.to_owned(), within_a_year(zone, now));
        }
        let Some(message) = changes.get(name).and_then(|changes| touched(schedule, name, changes)) else {
            continue;
        };
        if warnings.len() < MOST_WARNINGS {
            let location = config.location_of_job(&job.name, JobKey::Schedule);
            warnings.push(ConfigError { location, message: format!("job `{}`: {message}", job.name) });
        } else {
            more.push(&job.name);
        }
    }
    if let Some(first) = more.first() {
        let message = format!(
            "clock changes also touch {} more job{}: {}; `innkeeper job next NAME` shows how",
            more.len(),
            if more.len() == 1 { "" } else { "s" },
            named(&more)
        );
        warnings.push(ConfigError { location: config.location_of_job(first, JobKey::Schedule), message });
    }
    warnings
}

/// A change of the clock: when, and by how much.
struct Change {
    at: Timestamp,
    by: SignedDuration,
}

fn within_a_year(zone: &TimeZone, now: Timestamp) -> Vec<Change> {
    let Ok(until) = now.checked_add(SignedDuration::from_hours(24 * 366)) else { return Vec::new() };
    let mut offset = zone.to_offset(now);
    let mut changes = Vec::new();
    for next in zone.following(now).take_while(|next| next.timestamp() <= until) {
        let by = SignedDuration::from_secs(i64::from(next.offset().seconds() - offset.seconds()));
        offset = next.offset();
        if !by.is_zero() {
            changes.push(Change { at: next.timestamp(), by });
        }
    }
    changes
}

/// What the first change that touches a fire does to it.
fn touched(schedule: &Schedule, zone: &str, changes: &[Change]) -> Option<String> {
    changes.iter().find_map(|change| {
        // What a gap moves fires at its end, and what it leaves out is told by the next one. The
        // times that come twice are first shown right before the change.
        let first =
            if change.by.is_positive() { change.at } else { change.at.checked_add(change.by).ok()? };
        let fire = schedule.next_fire(first.checked_sub(1.microsecond()).ok()?)?;
        fire.notes.iter().find_map(|note| said(schedule, zone, fire.at, note))
    })
}

/// True where the job would not fire at this time, were it to fire at the last of both only. That
/// a clock shows a time twice does not double what goes by elapsed time.
fn is_doubled(schedule: &Schedule, at: Timestamp) -> bool {
    let spec = schedule.spec();
    let last = Schedule::new(&Spec { overlap: Overlap::Last, ..spec.clone() });
    let fires = |last: Schedule| last.next_after(at.checked_sub(1.microsecond()).ok()?);
    spec.overlap == Overlap::Both && last.is_ok_and(|last| fires(last) != Some(at))
}

fn said(schedule: &Schedule, zone: &str, at: Timestamp, note: &Note) -> Option<String> {
    let clock = at.to_zoned(schedule.zone().clone());
    match note {
        Note::AfterGap { wanted } => Some(format!(
            "on {} the clock in {zone} leaves out {}, and it fires at {} instead ({at}); with gap = \"skip\" it \
             would not",
            wanted.date(),
            wanted.time(),
            clock.time(),
        )),
        Note::SkippedGap { wanted } => Some(format!(
            "on {} the clock in {zone} leaves out {}, and it does not fire; with gap = \"run-after\" it would, \
             right after",
            wanted.date(),
            wanted.time(),
        )),
        Note::Repeated { first: true, both: true } if is_doubled(schedule, at) => Some(format!(
            "on {} the clock in {zone} shows {} twice, and it fires both times; with overlap = \"first\" or \
             \"last\" it would fire once",
            clock.date(),
            clock.time(),
        )),
        _ => None,
    }
}
