//! Jobs that fire more often than they take.
//!
//! Pure: what the history says is brought by who asks.

use std::collections::BTreeMap;
use std::time::Duration;

use humantime::format_duration;
use jiff::Timestamp;

use super::forecast::firing;
use crate::config::{Config, ConfigError, JobKey};
use crate::job::{Job, Name};
use crate::policy::WhenFull;
use crate::schedule::Schedule;

/// How long executions of a job took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Half of them took longer.
    pub median: Duration,
    /// How many there were.
    pub count: usize,
}

impl Taken {
    /// Of durations, in any order. None where there are too few to say anything.
    #[must_use]
    pub fn of(mut durations: Vec<Duration>) -> Option<Self> {
        const FEWEST: usize = 3;
        durations.sort_unstable();
        let median = *durations.get(durations.len() / 2)?;
        (durations.len() >= FEWEST).then_some(Self { median, count: durations.len() })
    }
}

/// Jobs whose history is worth a look: those that fire again before an attempt would have to end.
#[must_use]
pub fn worth_a_look(config: &Config, now: Timestamp) -> Vec<Name> {
    let is_close =
        |job: &Job, schedule: &Schedule| distance(schedule, now).is_some_and(|every| every < job.timeout);
    firing(config)
        .filter(|(job, schedule)| is_close(job, schedule))
        .map(|(job, _)| job.name.clone())
        .collect()
}

/// Warns of jobs that fire more often than they took.
#[must_use]
pub fn warnings(config: &Config, now: Timestamp, history: &BTreeMap<Name, Taken>) -> Vec<ConfigError> {
    let warning = |(job, schedule): (&Job, &Schedule)| {
        let taken = history.get(&job.name)?;
        let every = distance(schedule, now).filter(|every| *every < taken.median)?;
        let message = format!(
            "job `{}` fires about every {} and takes {}, the median of its last {} successes: {}",
            job.name,
            shown(every),
            shown(taken.median),
            taken.count,
            consequence(job, every, taken.median)?,
        );
        Some(ConfigError { location: config.location_of_job(&job.name, JobKey::Schedule), message })
    };
    firing(config).filter_map(warning).collect()
}

/// None where the limit has room for as many as run at once.
fn consequence(job: &Job, every: Duration, taken: Duration) -> Option<String> {
    let at_once = taken.as_nanos().div_ceil(every.as_nanos().max(1));
    let concurrency = job.policies.concurrency.as_ref();
    let Some(limit) = concurrency.and_then(|concurrency| concurrency.limit) else {
        return Some(format!(
            "about {at_once} run at once; let it fire less often, or say with `concurrency` what becomes of a \
             fire while another one runs"
        ));
    };
    if u128::from(limit) >= at_once {
        return None;
    }
    let and_so = match concurrency.map(|concurrency| concurrency.when_full).unwrap_or_default() {
        WhenFull::Queue => "they wait in a line that grows without end",
        WhenFull::Skip => "fires are skipped",
        WhenFull::Replace => "each is cancelled by the next before it is done",
    };
    Some(format!("with a limit of {limit} at once, {and_so}; let it fire less often"))
}

/// The usual time from one fire to the next. `every_after` waits for the end, and has none.
fn distance(schedule: &Schedule, now: Timestamp) -> Option<Duration> {
    const FIRES: i32 = 10;
    if schedule.every_after().is_some() {
        return None;
    }
    let first = schedule.next_after(now)?;
    let (mut last, mut count) = (first, 0);
    while let Some(next) = schedule.next_after(last).filter(|_| count < FIRES) {
        (last, count) = (next, count + 1);
    }
    Duration::try_from(first.duration_until(last)).ok()?.checked_div(count.unsigned_abs())
}

/// Without digits that say nothing.
fn shown(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let rounded = if millis >= 10_000 { millis / 1_000 * 1_000 } else { millis };
    format_duration(Duration::from_millis(rounded.max(1))).to_string()
}
