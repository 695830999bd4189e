//! Which fires there have to be: the simulation's own list, from the schedules and the times in which
//! they were in force by the store's clock. Nothing here looks at what the store made of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use innkeeper::catch_up::{ON_TIME, Range};
use innkeeper::job::Job;
use innkeeper::policy::{CatchUp, CatchUpMode};
use innkeeper::schedule::Schedule;
use jiff::Timestamp;

/// A time in which a schedule was in force, and all of whose fires have been looked at: those after
/// `from` up to `until`.
#[derive(Clone, Debug)]
struct Segment {
    schedule: Schedule,
    from: Timestamp,
    until: Timestamp,
}

/// What is known of one job's fires.
#[derive(Debug, Default)]
struct Log {
    current: Option<Segment>,
    past: Vec<Segment>,
    /// The latest time up to which any of its schedules was looked at.
    reached: Timestamp,
}

/// What the store has of a job's fires.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Fires with an execution, whatever became of it.
    pub single: HashSet<Timestamp>,
    /// Fires that share the record of a skip.
    pub ranges: Vec<Range>,
}

impl Recorded {
    fn has(&self, fire: Timestamp) -> bool {
        self.single.contains(&fire)
            || self.ranges.iter().any(|range| range.first <= fire && fire <= range.last)
    }
}

/// The list.
#[derive(Debug, Default)]
pub struct Ledger {
    logs: BTreeMap<String, Log>,
    /// Fires that were looked for in the store, and found.
    pub verified: usize,
}

impl Ledger {
    /// The file was synchronized with the store.
    pub fn synced(&mut self, jobs: &[Job], now: Timestamp) {
        let named: HashSet<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
        for (name, log) in &mut self.logs {
            if !named.contains(name.as_str()) {
                log.end(now);
            }
        }
        for job in jobs {
            let log = self.logs.entry(job.name.to_string()).or_default();
            let schedule = job.schedule.as_ref().filter(|_| job.enabled && !is_paced(job));
            let Some(schedule) = schedule else {
                log.end(now);
                continue;
            };
            if log.current.as_ref().is_some_and(|current| current.schedule == *schedule) {
                log.turn_back(now);
            } else {
                log.end(now);
                log.current = Some(Segment { schedule: schedule.clone(), from: now, until: now });
            }
        }
    }

    /// A planner has done all that is due. Returns the fires that it should have run, and those that it
    /// was free to run, of jobs whose clock did not go back: by job, where `is_paused` is not said of it.
    pub fn planned(
        &mut self,
        jobs: &[Job],
        is_paused: impl Fn(&str) -> bool,
        now: Timestamp,
    ) -> HashMap<String, BTreeSet<Timestamp>> {
        let mut expected = HashMap::new();
        for job in jobs.iter().filter(|job| !is_paused(job.name.as_str())) {
            let Some(log) = self.logs.get_mut(job.name.as_str()) else { continue };
            let Some(current) = &mut log.current else { continue };
            if now <= current.until {
                continue;
            }
            if current.until >= log.reached {
                let fires = fires(&current.schedule, current.until, now);
                let run = run(&fires, &job.policies.catch_up, now);
                expected.insert(job.name.to_string(), run);
            }
            current.until = now;
            log.reached = log.reached.max(now);
        }
        expected
    }

    /// The clock was set back, and jobs were planned anew.
    pub fn turned_back(&mut self, now: Timestamp) {
        self.logs.values_mut().for_each(|log| log.turn_back(now));
    }

    /// What was due of a job while it was paused is on record.
    pub fn resumed(&mut self, job: &str, now: Timestamp) {
        let Some(log) = self.logs.get_mut(job) else { return };
        if let Some(current) = &mut log.current {
            // It was planned anew as well, where that is earlier.
            current.until = current.until.max(now);
            log.reached = log.reached.max(current.until);
        }
        log.turn_back(now);
    }

    /// Looks for every fire. Returns those that are not there, and forgets what was looked for.
    pub fn verify(&mut self, recorded: &HashMap<String, Recorded>) -> Vec<(String, Timestamp)> {
        let (mut missing, nothing) = (Vec::new(), Recorded::default());
        for (name, log) in &mut self.logs {
            let recorded = recorded.get(name).unwrap_or(&nothing);
            let past = std::mem::take(&mut log.past);
            for segment in past.iter().chain(&log.current) {
                for fire in fires(&segment.schedule, segment.from, segment.until) {
                    self.verified += 1;
                    if !recorded.has(fire) {
                        missing.push((name.clone(), fire));
                    }
                }
            }
            if let Some(current) = &mut log.current {
                current.from = current.until;
            }
        }
        missing
    }
}

impl Log {
    /// The schedule is in force no more: what it had due is on record.
    fn end(&mut self, now: Timestamp) {
        if let Some(mut current) = self.current.take() {
            current.until = current.until.max(now);
            self.reached = self.reached.max(current.until);
            self.past.push(current);
        }
    }

    /// What is to come is due once more, where the clock was later already.
    fn turn_back(&mut self, now: Timestamp) {
        let Some(current) = &mut self.current else { return };
        if now < current.until {
            let again = Segment { schedule: current.schedule.clone(), from: now, until: now };
            self.reached = self.reached.max(current.until);
            self.past.push(std::mem::replace(current, again));
        }
    }
}

/// True where the end of an execution decides, and no list.
pub fn is_paced(job: &Job) -> bool {
    job.schedule.as_ref().is_some_and(|schedule| schedule.every_after().is_some())
}

fn fires(schedule: &Schedule, after: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let next = |after: &Timestamp| schedule.next_after(*after).filter(|next| *next <= until);
    std::iter::successors(next(&after), next).collect()
}

/// Which of these fires run, by the words of `docs/jobs.md`, "Missed fires".
fn run(fires: &[Timestamp], policy: &CatchUp, now: Timestamp) -> BTreeSet<Timestamp> {
    let late = |fire: &Timestamp| now.duration_since(*fire).unsigned_abs();
    let (on_time, missed) = match fires.split_last() {
        Some((newest, older)) if late(newest) <= ON_TIME => (Some(*newest), older),
        _ => (None, fires),
    };
    let most = match policy.mode {
        CatchUpMode::None => 0,
        CatchUpMode::Latest => usize::from(on_time.is_none()),
        CatchUpMode::All => policy.max as usize,
    };
    let in_window = missed.iter().rev().filter(|fire| policy.window.is_none_or(|most| late(fire) <= most));
    in_window.take(most).copied().chain(on_time).collect()
}
