//! Fire times, as every command shows them.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::period::Period;
use super::sentence::{local, zone_name};
use super::table::table;
use crate::schedule::{Fire, Schedule};

/// Without `-n`: fire times where the end of a period is given, and where not.
const MOST_OF_PERIOD: u32 = 1_000;
const USUAL: u32 = 10;

/// How many fire times, and from when to when.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Wanted {
    /// How many fire times; 10 where it is left out, 1000 with `--until`.
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) count: Option<u32>,
    /// From this time on, now where it is left out: RFC 3339, or without an offset in the schedule's
    /// time zone; a date is its first moment.
    #[arg(long, value_name = super::period::VALUE)]
    pub(super) from: Option<super::period::When>,
    /// Before this time; a date is its last moment.
    #[arg(long, value_name = super::period::VALUE)]
    pub(super) until: Option<super::period::When>,
}

impl Wanted {
    pub(super) fn count(&self) -> usize {
        self.count.unwrap_or(if self.until.is_some() { MOST_OF_PERIOD } else { USUAL }) as usize
    }

    pub(super) fn period(&self, zone: &TimeZone, now: Timestamp) -> Result<Period, super::CliError> {
        Period::new(self.from, self.until, zone, now)
    }
}

/// One fire time, as `--json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct FireTime {
    pub(super) utc: String,
    pub(super) local: String,
    /// What a clock change, a calendar or catch-up did to it.
    pub(super) note: Option<String>,
}

impl FireTime {
    pub(super) fn new(fire: &Fire, zone: &TimeZone) -> Self {
        let note = fire.notes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Self::at(fire.at, zone, Some(note).filter(|note| !note.is_empty()))
    }

    pub(super) fn at(time: Timestamp, zone: &TimeZone, note: Option<String>) -> Self {
        Self { utc: time.to_string(), local: local(time, zone), note }
    }
}

/// Fires of a period, from the evaluator that fires; and whether there are more of them than wanted.
pub(super) fn fires(schedule: &Schedule, period: Period, count: usize) -> (Vec<FireTime>, bool) {
    let mut fires = Vec::new();
    let mut after = period.before();
    while let Some(fire) = next_fire(schedule, after).filter(|fire| period.has(fire.at)) {
        if fires.len() == count {
            return (fires, true);
        }
        after = fire.at;
        fires.push(FireTime::new(&fire, schedule.zone()));
    }
    (fires, false)
}

/// The next fire, with what is to be said of the rest of the day that it is looked for on: a day that
/// is excluded, or a time that the clock leaves out.
pub(super) fn next_fire(schedule: &Schedule, after: Timestamp) -> Option<Fire> {
    let fire = schedule.next_fire(after)?;
    let today = after.to_zoned(schedule.zone().clone()).start_of_day().ok();
    let since = today.and_then(|today| today.timestamp().checked_sub(SignedDuration::from_micros(1)).ok());
    let of_day = since.and_then(|since| schedule.next_fire(since)).filter(|of_day| of_day.at == fire.at);
    Some(of_day.unwrap_or(fire))
}

/// A line each, with a column for notes where there is one.
pub(super) fn lines(fires: &[FireTime], zone: &TimeZone) -> String {
    let zone = zone_name(zone);
    let local = |fire: &FireTime| format!("{} {zone}", fire.local);
    if fires.iter().all(|fire| fire.note.is_none()) {
        return table(["LOCAL", "UTC"], fires.iter().map(|fire| [local(fire), fire.utc.clone()]));
    }
    table(
        ["LOCAL", "UTC", "NOTE"],
        fires.iter().map(|fire| [local(fire), fire.utc.clone(), fire.note.clone().unwrap_or_default()]),
    )
}

/// What is said below a list that ends before the period does.
pub(super) fn cut(count: usize) -> String {
    format!("\nThere are more before that: these are the first {count}. `-n` gives more.\n")
}
