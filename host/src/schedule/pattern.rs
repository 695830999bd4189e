//! Which dates and times of a clock a cron expression means. No time zone, no instants.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, Time};

/// A set for each field, bit `n` for value `n`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern {
    pub(super) seconds: u64,
    pub(super) minutes: u64,
    pub(super) hours: u32,
    pub(super) months: u16,
    pub(super) days: DayRule,
    /// Neither minute nor hour is a wildcard, so that it means times of day.
    pub(super) daily: bool,
}

/// Which days of a month.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DayRule {
    pub(super) of_month: u32,
    /// Sunday is bit 0.
    pub(super) of_week: u8,
    /// A day must be in both sets, since one of the fields begins with `*`; otherwise in one.
    pub(super) both: bool,
    /// What `L`, `W` and `#` add.
    pub(super) special: Option<Box<Special>>,
}

/// Days that depend on the month: for each of its lengths and first weekdays.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Special {
    pub(super) of_month: [u32; MONTHS],
    pub(super) of_week: [u32; MONTHS],
}

/// Four lengths, seven first weekdays.
pub(super) const MONTHS: usize = 28;

/// The calendar repeats after 400 years: what is not found in them is nowhere.
const MONTHS_OF_ALL: u32 = 400 * 12 + 1;

impl DayRule {
    /// A bit for each day of the month that is meant.
    fn days(&self, first: Date) -> u32 {
        let length = u32::from(first.days_in_month().unsigned_abs());
        let weekday = u32::from(first.weekday().to_sunday_zero_offset().unsigned_abs());
        let week = u32::from(self.of_week);
        let from_first = (week >> weekday | week << (7 - weekday)) & 0x7f;
        let weeks = from_first | from_first << 7 | from_first << 14 | from_first << 21 | from_first << 28;
        let (mut of_month, mut of_week) = (self.of_month, weeks << 1);
        if let Some(special) = &self.special {
            let month = (length - 28) as usize * 7 + weekday as usize;
            of_month |= special.of_month[month];
            of_week |= special.of_week[month];
        }
        let days = if self.both { of_month & of_week } else { of_month | of_week };
        // Bits 1 to `length`.
        days & (u32::MAX >> (31 - length)) & !1
    }
}

impl Pattern {
    pub(super) fn has_date(&self, date: Date) -> bool {
        self.has_month(date) && self.days.days(date.first_of_month()) >> date.day() & 1 == 1
    }

    fn has_month(&self, date: Date) -> bool {
        self.months >> date.month() & 1 == 1
    }

    pub(super) fn has_time(&self, time: Time) -> bool {
        self.hours >> time.hour() & 1 == 1
            && self.minutes >> time.minute() & 1 == 1
            && self.seconds >> time.second() & 1 == 1
    }

    pub(super) fn has(&self, civil: DateTime) -> bool {
        self.has_date(civil.date()) && self.has_time(civil.time())
    }

    /// The first date that is not before this one.
    pub(super) fn next_date(&self, from: Date) -> Option<Date> {
        let mut month = from.first_of_month();
        let mut not_before = u32::MAX << from.day();
        for _ in 0..MONTHS_OF_ALL {
            if self.has_month(month) {
                let days = self.days.days(month) & not_before;
                if days != 0 {
                    return Some(on_day(month, days.trailing_zeros()));
                }
            }
            not_before = u32::MAX;
            month = month.checked_add(1.month()).ok()?;
        }
        None
    }

    /// The last date that is not after this one.
    pub(super) fn previous_date(&self, from: Date) -> Option<Date> {
        let mut month = from.first_of_month();
        let mut not_after = u32::MAX >> (31 - from.day());
        for _ in 0..MONTHS_OF_ALL {
            if self.has_month(month) {
                let days = self.days.days(month) & not_after;
                if days != 0 {
                    return Some(on_day(month, 31 - days.leading_zeros()));
                }
            }
            not_after = u32::MAX;
            month = month.checked_sub(1.month()).ok()?;
        }
        None
    }

    /// The first time of a day that is not before this one.
    pub(super) fn next_time(&self, from: Time) -> Option<Time> {
        let [hour, minute, second] = fields(from);
        if u64::from(self.hours) >> hour & 1 == 1 {
            if self.minutes >> minute & 1 == 1
                && let Some(second) = first(self.seconds, second)
            {
                return time(hour, minute, second);
            }
            if let Some(minute) = first(self.minutes, minute + 1) {
                return time(hour, minute, first(self.seconds, 0)?);
            }
        }
        let hour = first(self.hours.into(), hour + 1)?;
        time(hour, first(self.minutes, 0)?, first(self.seconds, 0)?)
    }

    /// The last time of a day that is not after this one.
    pub(super) fn previous_time(&self, from: Time) -> Option<Time> {
        let [hour, minute, second] = fields(from);
        if u64::from(self.hours) >> hour & 1 == 1 {
            if self.minutes >> minute & 1 == 1
                && let Some(second) = last(self.seconds, second + 1)
            {
                return time(hour, minute, second);
            }
            if let Some(minute) = last(self.minutes, minute) {
                return time(hour, minute, last(self.seconds, 60)?);
            }
        }
        let hour = last(self.hours.into(), hour)?;
        time(hour, last(self.minutes, 60)?, last(self.seconds, 60)?)
    }
}

fn fields(time: Time) -> [u32; 3] {
    [time.hour(), time.minute(), time.second()].map(|field| u32::from(field.unsigned_abs()))
}

fn time(hour: u32, minute: u32, second: u32) -> Option<Time> {
    let [hour, minute, second] = [hour, minute, second].map(|field| i8::try_from(field).ok());
    Time::new(hour?, minute?, second?, 0).ok()
}

/// The lowest bit that is not below `from`.
fn first(bits: u64, from: u32) -> Option<u32> {
    let bits = bits & u64::MAX.checked_shl(from)?;
    (bits != 0).then(|| bits.trailing_zeros())
}

/// The highest bit below `below`, which is at most 63.
fn last(bits: u64, below: u32) -> Option<u32> {
    let bits = bits & !(u64::MAX << below);
    (bits != 0).then(|| 63 - bits.leading_zeros())
}

/// `day` is a day of the month.
fn on_day(month: Date, day: u32) -> Date {
    month.with().day(i8::try_from(day).unwrap_or(1)).build().unwrap_or(month)
}
