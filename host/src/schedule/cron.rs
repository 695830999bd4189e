//! The instants of a cron expression in a time zone.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::pattern::Pattern;
use super::spec::{Gap, Overlap, WhenExcluded};
use super::wall::{self, Shown};
use crate::calendar::Days;

/// A bound for loops that end long before it, so that a mistake cannot hang a host. Alternating
/// between a weekly pattern and a calendar without its weekday makes 52 steps a year.
const MOST_STEPS: usize = 5_000;

/// More than any offset, and any two of them are apart.
const DAYS: SignedDuration = SignedDuration::from_hours(60);

const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// A cron expression with all that decides what instants it means.
#[derive(Clone, Copy)]
pub(super) struct Cron<'a> {
    pub(super) pattern: &'a Pattern,
    pub(super) zone: &'a TimeZone,
    pub(super) gap: Gap,
    pub(super) overlap: Overlap,
    pub(super) days: Option<&'a Days>,
    pub(super) when_excluded: WhenExcluded,
}

/// Which of two instants a repeated time of day means.
#[derive(Clone, Copy, PartialEq)]
enum Pass {
    First,
    Last,
}

impl Cron<'_> {
    pub(super) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let daily = |pass| self.daily_after(after, pass);
        match self.overlap {
            _ if !self.pattern.daily => self.wildcard_after(after),
            Overlap::First => daily(Pass::First),
            Overlap::Last => daily(Pass::Last),
            Overlap::Both => [daily(Pass::First), daily(Pass::Last)].into_iter().flatten().min(),
        }
    }

    pub(super) fn last_until(&self, until: Timestamp) -> Option<Timestamp> {
        let daily = |pass| self.daily_until(until, pass);
        match self.overlap {
            _ if !self.pattern.daily => self.wildcard_until(until),
            Overlap::First => daily(Pass::First),
            Overlap::Last => daily(Pass::Last),
            Overlap::Both => [daily(Pass::First), daily(Pass::Last)].into_iter().flatten().max(),
        }
    }

    /// Of times of day, earlier ones never mean later instants: so the first one that means an
    /// instant after `after` is the answer, and only where to begin needs care.
    fn daily_after(&self, after: Timestamp, pass: Pass) -> Option<Timestamp> {
        let after = floor(after);
        let offset = self.zone.to_offset(after);
        let clock = offset.to_datetime(after);
        let mut from = clock.checked_add(SECOND).ok()?;
        if let AmbiguousOffset::Fold { before, .. } = self.zone.to_ambiguous_timestamp(clock).offset() {
            match pass {
                Pass::First if offset != before => from = wall::last_change(self.zone, after)?.from(),
                Pass::Last if offset == before => from = wall::next_change(self.zone, after)?.to(),
                _ => {}
            }
        }
        for _ in 0..MOST_STEPS {
            let civil = self.next_civil(from)?;
            match wall::shown(self.zone, civil)? {
                Shown::Once(at) => return Some(at),
                Shown::Twice(first, last) => return Some(if pass == Pass::First { first } else { last }),
                Shown::Never(change) if self.runs_after(change.to()) => return Some(change.at),
                Shown::Never(change) => from = change.to(),
            }
        }
        None
    }

    fn daily_until(&self, until: Timestamp, pass: Pass) -> Option<Timestamp> {
        let until = floor(until);
        let offset = self.zone.to_offset(until);
        let clock = offset.to_datetime(until);
        let mut to = clock;
        if let AmbiguousOffset::Fold { before, .. } = self.zone.to_ambiguous_timestamp(clock).offset() {
            let end = match pass {
                Pass::First if offset != before => Some(wall::last_change(self.zone, until)?.from()),
                Pass::Last if offset == before => Some(wall::next_change(self.zone, until)?.to()),
                _ => None,
            };
            if let Some(end) = end {
                to = end.checked_sub(SECOND).ok()?;
            }
        }
        for _ in 0..MOST_STEPS {
            let civil = self.previous_civil(to)?;
            match wall::shown(self.zone, civil)? {
                Shown::Once(at) => return Some(at),
                Shown::Twice(first, last) => return Some(if pass == Pass::First { first } else { last }),
                Shown::Never(change) if self.runs_after(change.to()) => return Some(change.at),
                Shown::Never(change) => to = change.from().checked_sub(SECOND).ok()?,
            }
        }
        None
    }

    /// True where what a gap leaves out fires at its end, on a day that is allowed.
    fn runs_after(&self, end: DateTime) -> bool {
        self.gap == Gap::RunAfter && self.days.is_none_or(|days| days.allows(end.date()))
    }

    /// Every instant at which the clock shows a time that matches, from change to change.
    ///
    /// A change shows again, or first, what is within a day of it. Where it is farther away than
    /// that, what lies between the clock and the match is not shown beyond it either, so that the
    /// changes between them need not be looked at one by one.
    fn wildcard_after(&self, after: Timestamp) -> Option<Timestamp> {
        let mut at = floor(after);
        let mut from = self.zone.to_offset(at).to_datetime(at).checked_add(SECOND).ok()?;
        for _ in 0..MOST_STEPS {
            let civil = self.next_civil(from)?;
            let change = wall::next_change(self.zone, at);
            let fire = self.zone.to_offset(at).to_timestamp(civil).ok();
            match (fire, change) {
                (fire, Some(change)) if fire.is_none_or(|fire| fire >= change.at) => {
                    let far = change.at.duration_since(at) > DAYS;
                    let near = nearly(civil).and_then(|near| near.checked_sub(DAYS).ok());
                    at = near.filter(|near| far && *near > change.at).unwrap_or(change.at);
                    from = self.zone.to_offset(at).to_datetime(at);
                }
                (fire, _) => return fire,
            }
        }
        None
    }

    fn wildcard_until(&self, until: Timestamp) -> Option<Timestamp> {
        let mut at = floor(until);
        for _ in 0..MOST_STEPS {
            let offset = self.zone.to_offset(at);
            let civil = self.previous_civil(offset.to_datetime(at))?;
            let change = wall::last_change(self.zone, at);
            let fire = offset.to_timestamp(civil).ok();
            match (fire, change) {
                (fire, Some(change)) if fire.is_none_or(|fire| fire < change.at) => {
                    let far = at.duration_since(change.at) > DAYS;
                    let near = nearly(civil).and_then(|near| near.checked_add(DAYS).ok());
                    let end = change.at.checked_sub(SECOND).ok()?;
                    at = near.filter(|near| far && *near < end).unwrap_or(end);
                }
                (fire, _) => return fire,
            }
        }
        None
    }

    /// The first date and time that match and are not before this.
    pub(super) fn next_civil(&self, from: DateTime) -> Option<DateTime> {
        let date = self.next_date(from.date())?;
        if date == from.date() {
            if let Some(time) = self.pattern.next_time(from.time()) {
                return Some(date.to_datetime(time));
            }
            let date = self.next_date(date.tomorrow().ok()?)?;
            return Some(date.to_datetime(self.pattern.next_time(Time::midnight())?));
        }
        Some(date.to_datetime(self.pattern.next_time(Time::midnight())?))
    }

    /// The last date and time that match and are not after this.
    fn previous_civil(&self, to: DateTime) -> Option<DateTime> {
        let mut date = self.previous_date(to.date())?;
        if date == to.date() {
            if let Some(time) = self.pattern.previous_time(to.time()) {
                return Some(date.to_datetime(time));
            }
            date = self.previous_date(date.yesterday().ok()?)?;
        }
        Some(date.to_datetime(self.pattern.previous_time(Time::MAX)?))
    }

    /// The first date that is not before this, matches, and is allowed.
    fn next_date(&self, from: Date) -> Option<Date> {
        let Some(days) = self.days else { return self.pattern.next_date(from) };
        match self.when_excluded {
            WhenExcluded::Skip => {
                let mut from = from;
                for _ in 0..MOST_STEPS {
                    let date = self.pattern.next_date(from)?;
                    from = days.next(date)?;
                    if from == date {
                        return Some(date);
                    }
                }
                None
            }
            // What matches after the last allowed day moves to the next one.
            WhenExcluded::NextDay => match from.yesterday().ok().and_then(|date| days.previous(date)) {
                Some(last) => days.next(self.pattern.next_date(last.tomorrow().ok()?)?),
                // All the time before it is excluded, and has matches.
                None => days.next(from),
            },
        }
    }

    fn previous_date(&self, to: Date) -> Option<Date> {
        let Some(days) = self.days else { return self.pattern.previous_date(to) };
        match self.when_excluded {
            WhenExcluded::Skip => {
                let mut to = to;
                for _ in 0..MOST_STEPS {
                    let date = self.pattern.previous_date(to)?;
                    to = days.previous(date)?;
                    if to == date {
                        return Some(date);
                    }
                }
                None
            }
            // It is moved to this allowed day at the latest.
            WhenExcluded::NextDay => days.next(self.pattern.previous_date(days.previous(to)?)?),
        }
    }
}

/// When clocks show this, give or take a day.
fn nearly(civil: DateTime) -> Option<Timestamp> {
    Offset::UTC.to_timestamp(civil).ok()
}

/// The second that an instant is in.
fn floor(time: Timestamp) -> Timestamp {
    let seconds = time.as_second() - i64::from(time.subsec_nanosecond() < 0);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MIN)
}
