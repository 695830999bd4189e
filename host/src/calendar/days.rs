//! Several calendars at once, made ready for being asked often.

use std::collections::BTreeSet;

use jiff::ToSpan;
use jiff::civil::Date;

use super::{Calendar, Weekday};

/// The days that every one of some calendars allows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Days {
    /// Weekdays that all of them allow, Sunday the lowest bit.
    weekdays: u8,
    /// Dates that are not what their weekday says, in ascending order.
    exceptions: Vec<(Date, bool)>,
}

struct Sets {
    weekdays: u8,
    include: BTreeSet<Date>,
    exclude: BTreeSet<Date>,
}

impl Sets {
    fn new(calendar: &Calendar) -> Self {
        Self {
            weekdays: calendar.weekdays(),
            include: calendar.include.iter().copied().collect(),
            exclude: calendar.exclude.iter().copied().collect(),
        }
    }

    fn allows(&self, date: Date) -> bool {
        self.include.contains(&date) || (by_weekday(self.weekdays, date) && !self.exclude.contains(&date))
    }
}

impl Days {
    pub(crate) fn new(calendars: &[Calendar]) -> Self {
        let weekdays = calendars.iter().fold(0x7f, |bits, calendar| bits & calendar.weekdays());
        let mut dates: Vec<Date> = calendars
            .iter()
            .flat_map(|calendar| calendar.include.iter().chain(&calendar.exclude))
            .copied()
            .collect();
        dates.sort_unstable();
        dates.dedup();
        // Sets, since a list of many years would take long to search for each of its dates.
        let sets: Vec<_> = calendars.iter().map(Sets::new).collect();
        let exceptions = dates
            .into_iter()
            .map(|date| (date, sets.iter().all(|calendar| calendar.allows(date))))
            .filter(|(date, allowed)| *allowed != by_weekday(weekdays, *date))
            .collect();
        Self { weekdays, exceptions }
    }

    /// True where no date at all is allowed.
    pub(crate) fn is_empty(&self) -> bool {
        self.weekdays == 0 && self.exceptions.is_empty()
    }

    /// The first date that is allowed though its weekday is not.
    pub(crate) fn first_exception(&self) -> Option<Date> {
        self.exceptions.first().map(|(date, _)| *date)
    }

    pub(crate) fn allows(&self, date: Date) -> bool {
        match self.exceptions.binary_search_by_key(&date, |(date, _)| *date) {
            Ok(at) => self.exceptions[at].1,
            Err(_) => by_weekday(self.weekdays, date),
        }
    }

    /// The first allowed date that is not before this one.
    pub(crate) fn next(&self, from: Date) -> Option<Date> {
        if self.weekdays == 0 {
            // All exceptions are allowed ones.
            let at = self.exceptions.partition_point(|(date, _)| *date < from);
            return self.exceptions.get(at).map(|(date, _)| *date);
        }
        // At most a week for each exception in a row.
        let mut date = from;
        while !self.allows(date) {
            date = date.checked_add(1.day()).ok()?;
        }
        Some(date)
    }

    /// The last allowed date that is not after this one.
    pub(crate) fn previous(&self, from: Date) -> Option<Date> {
        if self.weekdays == 0 {
            let at = self.exceptions.partition_point(|(date, _)| *date <= from);
            return self.exceptions[..at].last().map(|(date, _)| *date);
        }
        let mut date = from;
        while !self.allows(date) {
            date = date.checked_sub(1.day()).ok()?;
        }
        Some(date)
    }
}

fn by_weekday(weekdays: u8, date: Date) -> bool {
    weekdays >> Weekday::of(date).from_sunday() & 1 == 1
}
