//! `every`: multiples of a distance, in elapsed time.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::spec::{Gap, Overlap, WhenExcluded};
use super::wall;
use crate::calendar::Days;

/// A bound for loops that end before it, unless a calendar leaves out all of a rare schedule.
const MOST_STEPS: usize = 5_000;

/// How far back fires on excluded days are looked for that move to the next allowed one.
const LONGEST_RUN: i64 = 10 * 366 * 86_400 * 1_000_000;

/// `anchor + n * period`, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) anchor: i64,
    pub(super) period: i64,
}

/// An interval with the calendars that it keeps to.
#[derive(Clone, Copy)]
pub(super) struct Every<'a> {
    pub(super) interval: Interval,
    pub(super) zone: &'a TimeZone,
    pub(super) gap: Gap,
    pub(super) overlap: Overlap,
    pub(super) days: Option<&'a Days>,
    pub(super) when_excluded: WhenExcluded,
}

impl Interval {
    pub(super) fn next_after(self, after: Timestamp) -> Option<Timestamp> {
        // In range: a time and a period are some hundred times smaller than an `i64`.
        let whole = (floor(after) - self.anchor).div_euclid(self.period);
        Timestamp::from_microsecond((whole + 1) * self.period + self.anchor).ok()
    }

    fn last_until(self, until: Timestamp) -> Option<Timestamp> {
        let whole = (floor(until) - self.anchor).div_euclid(self.period);
        Timestamp::from_microsecond(whole * self.period + self.anchor).ok()
    }
}

impl Every<'_> {
    pub(super) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let Some(days) = self.days else { return self.interval.next_after(after) };
        if self.when_excluded == WhenExcluded::NextDay {
            return self.moved_after(days, after);
        }
        let mut after = after;
        for _ in 0..MOST_STEPS {
            let fire = self.interval.next_after(after)?;
            let date = wall::clock(self.zone, fire).date();
            let allowed = days.next(date)?;
            if allowed == date {
                return Some(fire);
            }
            after = fire.max(wall::before(wall::start_of(self.zone, allowed)?)?);
        }
        None
    }

    pub(super) fn last_until(&self, until: Timestamp) -> Option<Timestamp> {
        let Some(days) = self.days else { return self.interval.last_until(until) };
        if self.when_excluded == WhenExcluded::NextDay {
            return self.moved_until(days, until);
        }
        let mut until = until;
        for _ in 0..MOST_STEPS {
            let fire = self.interval.last_until(until)?;
            let date = wall::clock(self.zone, fire).date();
            let allowed = days.previous(date)?;
            if allowed == date {
                return Some(fire);
            }
            until = wall::before(fire)?.min(wall::end_of(self.zone, allowed)?);
        }
        None
    }

    fn moved_after(&self, days: &Days, after: Timestamp) -> Option<Timestamp> {
        let mut date = days.next(wall::clock(self.zone, after).date())?;
        for _ in 0..MOST_STEPS {
            if let Some(fire) = self.fires_of(days, date).into_iter().find(|fire| *fire > after) {
                return Some(fire);
            }
            let next = self.interval.next_after(wall::end_of(self.zone, date)?)?;
            date = days.next(wall::clock(self.zone, next).date())?;
        }
        None
    }

    fn moved_until(&self, days: &Days, until: Timestamp) -> Option<Timestamp> {
        let mut date = days.previous(wall::clock(self.zone, until).date())?;
        for _ in 0..MOST_STEPS {
            if let Some(fire) = self.fires_of(days, date).into_iter().rfind(|fire| *fire <= until) {
                return Some(fire);
            }
            let start = wall::start_of(self.zone, date)?;
            let earlier = self.interval.last_until(wall::before(start)?)?;
            let moved = days.next(wall::clock(self.zone, earlier).date())?;
            date = if moved < date { moved } else { days.previous(date.yesterday().ok()?)? };
        }
        None
    }

    /// What fires on an allowed day, with what is moved to it, in order.
    fn fires_of(&self, days: &Days, date: Date) -> Vec<Timestamp> {
        let (Some(start), Some(end)) = (wall::start_of(self.zone, date), wall::end_of(self.zone, date))
        else {
            return Vec::new();
        };
        let last_allowed = date.yesterday().ok().and_then(|date| days.previous(date));
        let run = last_allowed.and_then(|date| wall::end_of(self.zone, date));
        let oldest = Timestamp::from_microsecond(start.as_microsecond().saturating_sub(LONGEST_RUN));
        let mut time = run.unwrap_or(Timestamp::MIN).max(oldest.unwrap_or(Timestamp::MIN));
        let mut fires = Vec::new();
        while let Some(fire) = self.interval.next_after(time).filter(|fire| *fire <= end) {
            let clock = wall::clock(self.zone, fire);
            if clock.date() == date {
                fires.push(fire);
            } else {
                let moved = date.to_datetime(clock.time());
                fires.extend(wall::meant(self.zone, moved, self.gap, self.overlap));
            }
            time = fire;
        }
        fires.sort_unstable();
        fires.dedup();
        fires
    }
}

/// The microsecond that an instant is in.
fn floor(time: Timestamp) -> i64 {
    let below = time.subsec_nanosecond() % 1_000 < 0;
    time.as_microsecond() - i64::from(below)
}

/// A distance in microseconds, from 1 on.
pub(super) fn micros(period: Duration) -> Option<i64> {
    i64::try_from(period.as_micros()).ok().filter(|micros| *micros > 0)
}
