//! Fires whose time has passed: which of them still run, and which are skipped.
//!
//! Pure: no I/O, no clock. Work and memory are bounded however long nobody looked: a job that
//! fires ten times a second and was left alone for a year costs as much as one that missed a few
//! thousand fires.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::policy::{CatchUp, CatchUpMode};
use crate::schedule::Schedule;

/// How late the newest fire may be and still count as on time: a planner that is busy, a store that
/// is restarted and a host that is replaced take less.
pub const ON_TIME: Duration = Duration::from_secs(60);

/// How many skipped fires of one gap are recorded one by one, the newest; older ones share a record.
pub const ONE_BY_ONE: usize = 100;

/// How many missed fires of one gap run at most, whatever [`CatchUp::max`] says.
pub const MOST_RUNS: usize = 10_000;

/// How many of the fires that share a record are counted.
const MOST_COUNTED: u64 = 1_000;

/// What becomes of the fires of a gap. Each of them is in exactly one place here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Those that run, the earliest first. All of them are later than those that are skipped.
    pub run: Vec<Timestamp>,
    /// The others.
    pub skip: Skips,
}

/// Fires that are not run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skips {
    /// The earliest, where there are too many to record each.
    pub range: Option<Range>,
    /// The others, the earliest first.
    pub single: Vec<Timestamp>,
}

/// All fires of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first of them.
    pub first: Timestamp,
    /// The last of them.
    pub last: Timestamp,
    /// How many they are. None: too many to count.
    pub fires: Option<u64>,
}

impl Skips {
    /// True where there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_none() && self.single.is_empty()
    }
}

/// What becomes of the fires in `first..=now`, where nobody has looked since before `first`.
///
/// The newest is on time where it is at most [`ON_TIME`] old, and runs. All others are missed, and
/// `policy` says which of them run.
#[must_use]
pub fn catch_up(schedule: &Schedule, policy: &CatchUp, first: Timestamp, now: Timestamp) -> Gap {
    let mut fires = Backwards::new(schedule, first, now);
    let mut run = Vec::new();
    if let Some(newest) = fires.next_if(|fire| is_within(fire, now, Some(ON_TIME))) {
        run.push(newest);
    }
    let most = match policy.mode {
        CatchUpMode::None => 0,
        CatchUpMode::Latest => 1 - run.len(),
        CatchUpMode::All => usize::try_from(policy.max).map_or(MOST_RUNS, |max| max.min(MOST_RUNS)),
    };
    for _ in 0..most {
        let Some(fire) = fires.next_if(|fire| is_within(fire, now, policy.window)) else { break };
        run.push(fire);
    }
    run.reverse();
    Gap { run, skip: fires.skipped(ONE_BY_ONE) }
}

/// The fires in `first..=now`, none of which is to run. `one_by_one`: as many as that, the newest,
/// are told one by one.
#[must_use]
pub fn skip_all(schedule: &Schedule, first: Timestamp, now: Timestamp, one_by_one: usize) -> Skips {
    Backwards::new(schedule, first, now).skipped(one_by_one)
}

/// Why a missed fire is not run, for the person who finds it skipped.
#[must_use]
pub fn rule(policy: &CatchUp) -> String {
    let window = policy.window.map(|window| format!("at most {} late", humantime::format_duration(window)));
    match policy.mode {
        CatchUpMode::None => {
            "it was missed, and missed fires of this job are not run (catch-up `none`)".to_owned()
        }
        CatchUpMode::Latest => format!(
            "it was missed, and of the missed fires of this job only the latest is run{} (catch-up `latest`)",
            window.map_or(String::new(), |window| format!(", where it is {window}"))
        ),
        CatchUpMode::All => format!(
            "it was missed, and of the missed fires of this job only the latest {} are run{} (catch-up `all`)",
            policy.max,
            window.map_or(String::new(), |window| format!(", where they are {window}"))
        ),
    }
}

fn is_within(fire: Timestamp, now: Timestamp, window: Option<Duration>) -> bool {
    window.is_none_or(|window| Duration::try_from(now.duration_since(fire)).is_ok_and(|late| late <= window))
}

/// The fires of a gap, the newest first.
struct Backwards<'a> {
    schedule: &'a Schedule,
    first: Timestamp,
    next: Option<Timestamp>,
}

impl<'a> Backwards<'a> {
    fn new(schedule: &'a Schedule, first: Timestamp, now: Timestamp) -> Self {
        let next = match schedule.every_after() {
            // Nothing fires again before the execution of the one fire has ended.
            Some(_) => Some(first).filter(|first| *first <= now),
            None => schedule.last_until(now).filter(|fire| *fire >= first),
        };
        Self { schedule, first, next }
    }

    fn next_if(&mut self, fits: impl Fn(Timestamp) -> bool) -> Option<Timestamp> {
        let fire = self.next.filter(|fire| fits(*fire))?;
        self.next = before(fire)
            .filter(|_| self.schedule.every_after().is_none())
            .and_then(|before| self.schedule.last_until(before))
            // A schedule that did not go back would never come to an end.
            .filter(|earlier| *earlier >= self.first && *earlier < fire);
        Some(fire)
    }

    /// All that are left.
    fn skipped(mut self, one_by_one: usize) -> Skips {
        let mut single = Vec::new();
        while single.len() < one_by_one
            && let Some(fire) = self.next_if(|_| true)
        {
            single.push(fire);
        }
        single.reverse();
        Skips { range: self.range(), single }
    }

    fn range(mut self) -> Option<Range> {
        let last = self.next_if(|_| true)?;
        let (mut first, mut fires) = (last, 1);
        while let Some(fire) = self.next_if(|_| true) {
            (first, fires) = (fire, fires + 1);
            if fires == MOST_COUNTED && self.next.is_some() {
                let first = before(self.first).and_then(|before| self.schedule.next_after(before));
                return Some(Range { first: first.unwrap_or(self.first), last, fires: None });
            }
        }
        Some(Range { first, last, fires: Some(fires) })
    }
}

fn before(time: Timestamp) -> Option<Timestamp> {
    Timestamp::from_microsecond(time.as_microsecond().checked_sub(1)?).ok()
}

#[cfg(test)]
mod tests;
