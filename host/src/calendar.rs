//! Named sets of days on which jobs may fire, or may not.
//!
//! Pure: no I/O, no clock. A day is a date of the clock in the job's time zone.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

pub(crate) use days::Days;

mod days;

/// A calendar, as an operator writes it. Where all four lists are empty, it allows every day.
///
/// - A date in `include` is allowed, whatever its weekday.
/// - A date in `exclude` is not.
/// - Of the others those are allowed whose weekday is in `include_weekdays`, or in no list of
///   weekdays where that one is empty, and not in `exclude_weekdays`. In a calendar that has dates
///   in `include` and no weekdays at all, no other date is allowed: it lists its days.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    /// The name under which jobs refer to it.
    pub name: String,
    /// Dates that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Date>,
    /// Weekdays that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_weekdays: Vec<Weekday>,
    /// Dates that are allowed whatever their weekday.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<Date>,
    /// The only weekdays that are allowed; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include_weekdays: Vec<Weekday>,
}

/// A weekday, written as `MON` to `SUN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Weekday(u8);

/// Why a calendar cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CalendarError {
    /// The key that is wrong: one of the four lists, or none for the calendar as a whole.
    pub key: Option<&'static str>,
    /// What is wrong, and what to write.
    pub message: String,
}

const NAMES: [(&str, &str); 7] = [
    ("SUN", "Sunday"),
    ("MON", "Monday"),
    ("TUE", "Tuesday"),
    ("WED", "Wednesday"),
    ("THU", "Thursday"),
    ("FRI", "Friday"),
    ("SAT", "Saturday"),
];

impl Calendar {
    /// Checks that the lists do not contradict each other and leave a day.
    ///
    /// # Errors
    /// Where a date or a weekday is both included and excluded, or no day is left.
    pub fn check(&self) -> Result<(), CalendarError> {
        let error = |key, message| Err(CalendarError { key, message });
        if let Some(date) = self.include.iter().find(|date| self.exclude.contains(date)) {
            return error(Some("include"), format!("{date} is in `include` and in `exclude`: leave one out"));
        }
        if let Some(day) = self.include_weekdays.iter().find(|day| self.exclude_weekdays.contains(day)) {
            return error(
                Some("include_weekdays"),
                format!("{day} is in `include_weekdays` and in `exclude_weekdays`: leave one out"),
            );
        }
        if self.lists_its_days() && !self.exclude.is_empty() {
            return error(
                Some("exclude"),
                "without weekdays, the dates in `include` are the only ones that are allowed: leave `exclude` \
                 out, or say which weekdays are allowed"
                    .to_owned(),
            );
        }
        if self.weekdays() == 0 && self.include.is_empty() {
            return error(None, format!("calendar `{}` allows no day at all", self.name));
        }
        Ok(())
    }

    /// True where nothing but the dates in `include` is allowed.
    fn lists_its_days(&self) -> bool {
        !self.include.is_empty() && self.include_weekdays.is_empty() && self.exclude_weekdays.is_empty()
    }

    /// A bit for each weekday that is allowed, Sunday's the lowest.
    fn weekdays(&self) -> u8 {
        let bits = |days: &[Weekday]| days.iter().fold(0, |bits, day| bits | 1 << day.0);
        match self.include_weekdays.as_slice() {
            _ if self.lists_its_days() => 0,
            [] => !bits(&self.exclude_weekdays) & 0x7f,
            only => bits(only) & !bits(&self.exclude_weekdays),
        }
    }

    /// True where a job may fire on the date.
    #[must_use]
    pub fn allows(&self, date: Date) -> bool {
        self.include.contains(&date)
            || (!self.exclude.contains(&date) && self.weekdays() >> Weekday::of(date).0 & 1 == 1)
    }
}

impl Weekday {
    /// The weekday of a date.
    #[must_use]
    pub fn of(date: Date) -> Self {
        Self(date.weekday().to_sunday_zero_offset().unsigned_abs())
    }

    /// Days since Sunday.
    #[must_use]
    pub fn from_sunday(self) -> u8 {
        self.0
    }

    /// Such as `Monday`.
    #[must_use]
    pub fn long_name(self) -> &'static str {
        NAMES[usize::from(self.0)].1
    }
}

impl fmt::Display for Weekday {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES[usize::from(self.0)].0)
    }
}

impl FromStr for Weekday {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = (0u8..)
            .zip(NAMES)
            .find(|(_, (short, long))| text.eq_ignore_ascii_case(short) || text.eq_ignore_ascii_case(long));
        found
            .map(|(day, _)| Self(day))
            .ok_or_else(|| format!("`{text}` is not a weekday: write MON, TUE, WED, THU, FRI, SAT or SUN"))
    }
}

impl TryFrom<String> for Weekday {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Weekday> for String {
    fn from(day: Weekday) -> Self {
        day.to_string()
    }
}
