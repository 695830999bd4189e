//! When a job fires: from a schedule and an instant to the next one.
//!
//! Pure: no I/O, no clock. Everything that shows or records a fire time asks
//! [`Schedule::next_after`], so that a preview cannot differ from what happens.
//!
//! A fire time is made in this order: a cron expression names dates and times of a clock
//! (`pattern`, read by `expression`); a calendar takes dates away or moves them; the time zone
//! makes instants of them (`cron`, `wall`), or elapsed time does (`interval`); jitter is
//! added; the bounds are kept. Each step goes forward and back.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::calendar::Days;
use cron::Cron;
use interval::{Every, Interval};
use pattern::Pattern;

pub use note::{Fire, Note};
pub use spec::{Gap, Overlap, Spec, WhenExcluded};

mod build;
mod cron;
mod draw;
mod explain;
mod expression;
mod interval;
mod note;
mod pattern;
mod spec;
#[cfg(test)]
mod tests;
mod wall;
mod written;

/// When a job fires, and in which time zone that is meant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Spec", into = "Spec")]
pub struct Schedule {
    /// As it is kept. All else is made of it.
    spec: Box<Spec>,
    timing: Timing,
    zone: TimeZone,
    days: Option<Box<Days>>,
    /// The most that is added to a fire, in microseconds.
    jitter: i64,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
}

#[derive(Clone, Debug)]
enum Timing {
    Cron(Box<Pattern>),
    Every(Interval),
    EveryAfter(Duration),
    /// Twice where the clock shows the time twice and both are meant.
    At(Timestamp, Option<Timestamp>),
}

/// What is wrong with a schedule, and in which of its keys.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ScheduleError {
    /// The key of the configuration that is wrong, as a field of [`Spec`] is called, or none for
    /// the schedule as a whole.
    pub key: Option<&'static str>,
    /// What is wrong, and what to write.
    pub message: String,
}

impl ScheduleError {
    fn new(key: impl Into<Option<&'static str>>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

impl Schedule {
    /// Makes a schedule of what an operator wrote.
    ///
    /// # Errors
    /// Where a part cannot be read or has no meaning beside the others, no or several of `cron`,
    /// `every`, `every_after` and `at` are given, or it can never fire (30 February).
    pub fn new(spec: &Spec) -> Result<Self, ScheduleError> {
        build::schedule(spec)
    }

    /// The first fire time after `after`, or none if there is no further one. In whole
    /// microseconds.
    ///
    /// `every` counts in elapsed time. `cron` reads the clock of the time zone: what happens to a
    /// time of day that a clock change leaves out or repeats is for [`Gap`] and [`Overlap`] to
    /// say, and an expression with a wildcard hour or minute fires whenever the clock shows a time
    /// that matches (the rule of Debian's cron, cron(8)). `every_after` is answered as if an
    /// execution had ended at `after`.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        if matches!(self.timing, Timing::EveryAfter(_)) {
            return self.after_finish(after);
        }
        let bound = self.not_before.and_then(wall::before).unwrap_or(Timestamp::MIN);
        let next = self.jittered_after(after.max(bound))?;
        (next <= self.not_after.unwrap_or(Timestamp::MAX)).then_some(next)
    }

    /// The last fire time that is not after `until`. None where there is none, and for
    /// `every_after`, which nobody can know without its executions.
    #[must_use]
    pub fn last_until(&self, until: Timestamp) -> Option<Timestamp> {
        let last = self.jittered_until(until.min(self.not_after.unwrap_or(Timestamp::MAX)))?;
        (last >= self.not_before.unwrap_or(Timestamp::MIN)).then_some(last)
    }

    /// When a job with `every_after` fires whose last execution has ended at `finish`: the period
    /// later, not before the first bound, and on an allowed day: where that is another, at its
    /// start or, with [`WhenExcluded::NextDay`], at the same time of day. None after the last
    /// bound, and for every other schedule.
    #[must_use]
    pub fn after_finish(&self, finish: Timestamp) -> Option<Timestamp> {
        let Timing::EveryAfter(period) = self.timing else { return None };
        let time = finish.checked_add(period).ok()?;
        let mut time = Timestamp::from_microsecond(time.as_microsecond()).ok()?;
        time = time.max(self.not_before.unwrap_or(Timestamp::MIN));
        if let Some(days) = &self.days {
            let clock = wall::clock(&self.zone, time);
            let date = days.next(clock.date())?;
            if date != clock.date() {
                let on_it = match self.spec.when_excluded {
                    WhenExcluded::Skip => jiff::civil::Time::midnight(),
                    WhenExcluded::NextDay => clock.time(),
                };
                time = wall::first_shown(&self.zone, date.to_datetime(on_it))?;
            }
        }
        (time <= self.not_after.unwrap_or(Timestamp::MAX)).then_some(time)
    }

    /// The period of `every_after`; none for every other schedule.
    #[must_use]
    pub fn every_after(&self) -> Option<Duration> {
        match self.timing {
            Timing::EveryAfter(period) => Some(period),
            _ => None,
        }
    }

    /// The zone in which fire times are shown.
    #[must_use]
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The schedule as an operator would write it, and as it is kept.
    #[must_use]
    pub fn spec(&self) -> Spec {
        (*self.spec).clone()
    }

    /// Each fire is later than its nominal time by less than the distance to the next one, so that
    /// the order of fires stays that of their nominal times.
    fn jittered_after(&self, after: Timestamp) -> Option<Timestamp> {
        if self.jitter == 0 {
            return self.nominal_after(after);
        }
        let drawn = self.nominal_until(after).and_then(|nominal| self.with_jitter(nominal));
        match drawn.filter(|fire| *fire > after) {
            Some(fire) => Some(fire),
            None => self.with_jitter(self.nominal_after(after)?),
        }
    }

    fn jittered_until(&self, until: Timestamp) -> Option<Timestamp> {
        let nominal = self.nominal_until(until)?;
        if self.jitter == 0 {
            return Some(nominal);
        }
        match self.with_jitter(nominal).filter(|fire| *fire <= until) {
            Some(fire) => Some(fire),
            None => self.with_jitter(self.nominal_until(wall::before(nominal)?)?),
        }
    }

    fn with_jitter(&self, nominal: Timestamp) -> Option<Timestamp> {
        let time = nominal.as_microsecond();
        let room = self.nominal_after(nominal).map_or(i64::MAX, |next| next.as_microsecond() - time);
        let name = self.spec.name.as_deref().unwrap_or_default();
        let drawn = draw::draw(&[name.as_bytes(), b"jitter", &time.to_le_bytes()]);
        let late = draw::scale(drawn, self.jitter.min(room).unsigned_abs());
        Timestamp::from_microsecond(time.checked_add_unsigned(late)?).ok()
    }

    /// Without jitter and bounds.
    fn nominal_after(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.timing {
            Timing::Cron(pattern) => self.cron(pattern).next_after(after),
            Timing::Every(interval) => self.interval(*interval).next_after(after),
            Timing::EveryAfter(_) => None,
            Timing::At(at, again) => [Some(*at), *again].into_iter().flatten().find(|at| *at > after),
        }
    }

    fn nominal_until(&self, until: Timestamp) -> Option<Timestamp> {
        match &self.timing {
            Timing::Cron(pattern) => self.cron(pattern).last_until(until),
            Timing::Every(interval) => self.interval(*interval).last_until(until),
            Timing::EveryAfter(_) => None,
            Timing::At(at, again) => [*again, Some(*at)].into_iter().flatten().find(|at| *at <= until),
        }
    }

    fn cron<'a>(&'a self, pattern: &'a Pattern) -> Cron<'a> {
        let Spec { gap, overlap, when_excluded, .. } = *self.spec;
        Cron { pattern, zone: &self.zone, gap, overlap, days: self.days.as_deref(), when_excluded }
    }

    fn interval(&self, interval: Interval) -> Every<'_> {
        let Spec { gap, overlap, when_excluded, .. } = *self.spec;
        Every { interval, zone: &self.zone, gap, overlap, days: self.days.as_deref(), when_excluded }
    }

    /// True where calendars leave no day of all that a schedule could have.
    fn is_never_allowed(&self) -> bool {
        let Some(days) = &self.days else { return false };
        let year = Date::constant(2000, 1, 1);
        let start = days.first_exception().map_or(year, |date| date.min(year));
        let start = wall::start_of(&self.zone, start).and_then(wall::before).unwrap_or(Timestamp::MIN);
        !matches!(self.timing, Timing::EveryAfter(_)) && self.nominal_after(start).is_none()
    }
}

/// Two schedules are the same where the same is kept of them.
impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.timing {
            Timing::Cron(_) => write!(f, "cron \"{}\"", self.spec.cron.as_deref().unwrap_or_default())?,
            Timing::Every(interval) => {
                let period = Duration::from_micros(interval.period.unsigned_abs());
                return write!(f, "every {}", humantime::format_duration(period));
            }
            Timing::EveryAfter(period) => {
                return write!(f, "every {} after the last", humantime::format_duration(*period));
            }
            Timing::At(at, _) => return write!(f, "at {}", at.to_zoned(self.zone.clone())),
        }
        write!(f, " {}", self.zone.iana_name().unwrap_or("UTC"))
    }
}

impl TryFrom<Spec> for Schedule {
    type Error = ScheduleError;
    fn try_from(spec: Spec) -> Result<Self, ScheduleError> {
        Self::new(&spec)
    }
}

impl From<Schedule> for Spec {
    fn from(schedule: Schedule) -> Self {
        *schedule.spec
    }
}
