//! Fires that are due and that no host has taken yet: what catch-up will do with them.

use jiff::Timestamp;
use serde::Serialize;

use crate::catch_up::{ON_TIME, Skips, catch_up, rule};
use crate::cli::fires::FireTime;
use crate::cli::sentence::{from_now, moment, span};
use crate::policy::CatchUpMode;
use crate::schedule::Schedule;
use crate::store::JobRecord;

/// What becomes of what is due.
#[derive(Debug, Default)]
pub(super) struct Missed {
    /// Those that run as soon as a host is up, the earliest first.
    pub(super) run: Vec<FireTime>,
    pub(super) skipped: Option<Skipped>,
}

/// Fires that will be recorded as skipped.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Skipped {
    /// How many. None: too many to count.
    fires: Option<u64>,
    first: Timestamp,
    last: Timestamp,
    why: String,
}

impl Skipped {
    pub(super) fn text(&self) -> String {
        let Self { first, last, why, .. } = self;
        match self.fires {
            Some(1) => format!("The fire of {} will not run: {why}.", moment(*first)),
            Some(more) => {
                let span = format!("from {} to {}", moment(*first), moment(*last));
                format!("{more} fires {span} will not run, each for this reason: {why}.")
            }
            None => {
                let span = format!("from {} to {}", moment(*first), moment(*last));
                format!("More than 1000 fires {span} will not run, each for this reason: {why}.")
            }
        }
    }
}

/// By the rule that the planner goes by.
pub(super) fn missed(record: &JobRecord, schedule: &Schedule, now: Timestamp) -> Missed {
    let Some(first) = record.next_fire_at.filter(|first| *first <= now) else { return Missed::default() };
    let policy = record.job.policies.catch_up;
    let gap = catch_up(schedule, &policy, first, now);
    let run = gap.run.iter().map(|at| {
        let late = std::time::Duration::try_from(now.duration_since(*at)).unwrap_or_default();
        let note = if late <= ON_TIME {
            "due now: runs as soon as a host looks".to_owned()
        } else {
            format!("due {}, and missed: catch-up `{}` runs it", from_now(*at, now), mode(policy.mode))
        };
        FireTime::at(*at, schedule.zone(), Some(note))
    });
    Missed { run: run.collect(), skipped: skipped(&gap.skip, rule(&policy)) }
}

fn mode(mode: CatchUpMode) -> &'static str {
    match mode {
        CatchUpMode::None => "none",
        CatchUpMode::Latest => "latest",
        CatchUpMode::All => "all",
    }
}

fn skipped(skips: &Skips, why: String) -> Option<Skipped> {
    let single = skips.single.len() as u64;
    let fires = match &skips.range {
        Some(range) => range.fires.map(|fires| fires + single),
        None => Some(single),
    };
    let first = skips.range.map(|range| range.first).or(skips.single.first().copied())?;
    let last = skips.single.last().copied().or(skips.range.map(|range| range.last))?;
    Some(Skipped { fires, first, last, why })
}

/// What a job does about fires that nobody saw, as a sentence.
pub(super) fn sentence(record: &JobRecord, schedule: &Schedule) -> String {
    let policy = record.job.policies.catch_up;
    let late = |before: &str| {
        policy.window.map_or_else(String::new, |window| format!("{before} at most {} late", span(window)))
    };
    if schedule.every_after().is_some() || schedule.spec().at.is_some() {
        let missed = "When no host is up at its time,";
        return match policy.mode {
            CatchUpMode::None => format!("{missed} it is not run later: that time is recorded as skipped."),
            _ => format!("{missed} it is run as soon as one is{}.", late(", if it is then")),
        };
    }
    let missed = "When fires are missed, since no host was up";
    match policy.mode {
        CatchUpMode::None => format!("{missed}, none of them is run later: they are recorded as skipped."),
        CatchUpMode::Latest => format!(
            "{missed}, the latest of them is run late, once{}; the others are recorded as skipped.",
            late(", if it is then")
        ),
        CatchUpMode::All => format!(
            "{missed}, each of them{} is run late, but never more than the newest {}; the others are recorded as \
             skipped.",
            late(" that is then"),
            policy.max
        ),
    }
}
