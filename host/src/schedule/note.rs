//! Why a fire is where it is: what a change of the clock, a calendar or jitter did.

use std::fmt;
use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::{SignedDuration, Timestamp};

use super::interval::Interval;
use super::pattern::Pattern;
use super::spec::{Gap, Overlap, Spec, WhenExcluded};
use super::wall::{self, Shown};
use super::{Schedule, Timing, written};
use crate::calendar::{Days, Weekday};

/// Days and changes of the clock that are looked at between two fires, at most.
const MOST_STEPS: usize = 1_000;

/// A fire time, and why it is where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fire {
    /// When the job fires.
    pub at: Timestamp,
    /// What a change of the clock, a calendar or jitter did to it, and to what would have come
    /// before it. Mostly nothing.
    pub notes: Vec<Note>,
}

/// What was done to a fire. As text it is a short sentence without its full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// The clock leaves out the time that was wanted; this is the first instant after it.
    AfterGap {
        /// What the clock does not show.
        wanted: DateTime,
    },
    /// A fire before this one was left out, since the clock never shows its time.
    SkippedGap {
        /// What the clock does not show.
        wanted: DateTime,
    },
    /// The clock shows this time twice.
    Repeated {
        /// True where this is the first time.
        first: bool,
        /// True where the job fires both times.
        both: bool,
    },
    /// It was moved here from a day that a calendar excludes.
    Moved {
        /// That day; the first, where there are several.
        from: Date,
        /// The calendar.
        calendar: String,
    },
    /// Days before it were left out, since a calendar excludes them.
    Excluded {
        /// The first of them.
        first: Date,
        /// How many.
        days: usize,
        /// The calendar that excludes the first.
        calendar: String,
    },
    /// It is later than its time by what was drawn.
    Jitter {
        /// Its time without jitter.
        nominal: Timestamp,
        /// How much later it is.
        late: Duration,
    },
}

impl Schedule {
    /// As [`Schedule::next_after`], with what a person wants to know about the fire and about what
    /// was left out between `after` and it.
    #[must_use]
    pub fn next_fire(&self, after: Timestamp) -> Option<Fire> {
        let at = self.next_after(after)?;
        let nominal = self.nominal_until(at).filter(|_| self.jitter > 0).unwrap_or(at);
        let mut notes = match &self.timing {
            Timing::Cron(pattern) => self.notes_of_cron(pattern, after, nominal),
            Timing::Every(interval) => self.notes_of_interval(*interval, after, nominal),
            Timing::EveryAfter(_) => Vec::new(),
            Timing::At(first, again) => {
                let twice = again.map(|_| Note::Repeated { first: at == *first, both: true });
                twice.into_iter().chain(self.note_of_at(at)).collect()
            }
        };
        if nominal != at {
            let late = Duration::try_from(at.duration_since(nominal)).unwrap_or_default();
            notes.push(Note::Jitter { nominal, late });
        }
        Some(Fire { at, notes })
    }

    fn notes_of_cron(&self, pattern: &Pattern, after: Timestamp, nominal: Timestamp) -> Vec<Note> {
        let clock = wall::clock(&self.zone, nominal);
        let mut notes = Vec::new();
        if pattern.daily {
            notes.extend(self.note_of_gaps(pattern, after, nominal));
        }
        if let Some(Shown::Twice(first, _)) = wall::shown(&self.zone, clock)
            && pattern.has(clock)
        {
            let both = !pattern.daily || self.spec.overlap == Overlap::Both;
            notes.push(Note::Repeated { first: first == nominal, both });
        }
        if let Some(days) = &self.days {
            let now = wall::clock(&self.zone, after);
            let second = SignedDuration::from_secs(1);
            let later_that_day = now.time().checked_add(second).ok().and_then(|from| pattern.next_time(from));
            let since = if later_that_day.is_some() { Some(now.date()) } else { now.date().tomorrow().ok() };
            notes.extend(self.note_of_days(days, since, clock.date(), |from| pattern.next_date(from)));
        }
        notes
    }

    /// The gap that ends with this fire or, where what is in gaps is left out, the first one
    /// before it.
    fn note_of_gaps(&self, pattern: &Pattern, after: Timestamp, nominal: Timestamp) -> Option<Note> {
        let cron = self.cron(pattern);
        // With jitter, `after` may be later than what the fire was before it.
        let mut time = after.min(wall::before(nominal)?);
        for _ in 0..MOST_STEPS {
            let change = wall::next_change(&self.zone, time).filter(|change| change.at <= nominal)?;
            let wanted = cron.next_civil(change.from()).filter(|wanted| *wanted < change.to());
            match wanted {
                Some(wanted) if change.at == nominal && self.spec.gap == Gap::RunAfter => {
                    return Some(Note::AfterGap { wanted });
                }
                Some(wanted) if self.spec.gap == Gap::Skip => return Some(Note::SkippedGap { wanted }),
                _ => time = change.at,
            }
        }
        None
    }

    fn notes_of_interval(&self, interval: Interval, after: Timestamp, nominal: Timestamp) -> Vec<Note> {
        let Some(days) = &self.days else { return Vec::new() };
        let on = |from: Date| {
            let start = wall::before(wall::start_of(&self.zone, from)?)?;
            Some(wall::clock(&self.zone, interval.next_after(start)?).date())
        };
        let date = |time: Timestamp| wall::clock(&self.zone, time).date();
        self.note_of_days(days, interval.next_after(after).map(date), date(nominal), on).into_iter().collect()
    }

    /// The day that `at` was written for, where it was moved.
    fn note_of_at(&self, at: Timestamp) -> Option<Note> {
        let Spec { gap, overlap, .. } = *self.spec;
        let (written, ..) = written::at(self.spec.at.as_deref()?, &self.zone, gap, overlap).ok()?;
        let [from, to] = [written, at].map(|time| wall::clock(&self.zone, time).date());
        (from != to).then(|| Note::Moved { from, calendar: self.excluding(from) })
    }

    /// The name of the first calendar that excludes a date.
    fn excluding(&self, date: Date) -> String {
        let calendar = self.spec.calendars.iter().find(|calendar| !calendar.allows(date));
        calendar.map(|calendar| calendar.name.clone()).unwrap_or_default()
    }

    /// What calendars did from `since` on to a fire on `date`. `next` is the first date that is not
    /// before another and has fires, whether it is allowed or not.
    fn note_of_days(
        &self,
        days: &Days,
        since: Option<Date>,
        date: Date,
        next: impl Fn(Date) -> Option<Date>,
    ) -> Option<Note> {
        if self.spec.when_excluded == WhenExcluded::NextDay {
            let last = days.previous(date.yesterday().ok()?)?;
            let from = next(last.tomorrow().ok()?).filter(|from| *from < date)?;
            return Some(Note::Moved { from, calendar: self.excluding(from) });
        }
        let mut first = None;
        let mut count = 0;
        let mut day = since?;
        while let Some(with_fires) = next(day).filter(|day| *day < date && count < MOST_STEPS) {
            if !days.allows(with_fires) {
                first.get_or_insert(with_fires);
                count += 1;
            }
            day = with_fires.tomorrow().ok()?;
        }
        first.map(|first| Note::Excluded { first, days: count, calendar: self.excluding(first) })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AfterGap { wanted } => {
                write!(f, "the clock leaves out {}: runs right after the gap", Minute(*wanted))
            }
            Self::SkippedGap { wanted } => {
                write!(f, "the clock leaves out {} before it: did not run then", Minute(*wanted))
            }
            Self::Repeated { both: true, first } => {
                write!(f, "the clock shows this time twice: runs both times, this is the {}", nth(*first))
            }
            Self::Repeated { both: false, first } => {
                write!(f, "the clock shows this time twice: runs the {} only", nth(*first))
            }
            Self::Moved { from, calendar } => {
                write!(f, "calendar `{calendar}` excludes {}: moved here", Day(*from))
            }
            Self::Excluded { first, days: 1, calendar } => {
                write!(f, "calendar `{calendar}` excludes {} before it", Day(*first))
            }
            Self::Excluded { first, days, calendar } => {
                let days = days - 1;
                let s = if days == 1 { "" } else { "s" };
                write!(f, "calendar `{calendar}` excludes {} before it, and {days} more day{s}", Day(*first))
            }
            Self::Jitter { late, .. } => {
                let late = Duration::from_millis(u64::try_from(late.as_millis()).unwrap_or(u64::MAX));
                write!(f, "later by jitter of {}", humantime::format_duration(late))
            }
        }
    }
}

fn nth(first: bool) -> &'static str {
    if first { "first time" } else { "second time" }
}

/// Without seconds, unless there are some.
struct Minute(DateTime);

impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = if self.0.second() == 0 { "%Y-%m-%d %H:%M" } else { "%Y-%m-%d %H:%M:%S" };
        write!(f, "{}", self.0.strftime(format))
    }
}

/// With its weekday.
struct Day(Date);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Weekday::of(self.0).long_name(), self.0)
    }
}
