//! `--from` and `--until`.

use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::CliError;

/// A time as a person writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Instant(Timestamp),
    /// What a clock shows, in the zone of what is asked for.
    Clock(DateTime),
    /// All of a day, in that zone.
    Day(Date),
}

/// What `--from` and `--until` take, for `--help`.
pub(super) const VALUE: &str = "TIME";

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self::Instant(time));
        }
        // With a time behind it, it is no whole day.
        if text.len() <= "-009999-12-31".len()
            && let Ok(day) = text.parse::<Date>()
        {
            return Ok(Self::Day(day));
        }
        text.parse::<DateTime>().map(Self::Clock).map_err(|_| {
            "write a date such as 2026-10-25, a date and time such as 2026-10-25T02:30, or one with an offset \
             such as 2026-10-25T02:30:00+02:00 or 2026-10-25T00:30:00Z"
                .to_owned()
        })
    }
}

impl When {
    /// The first instant of it. A time that the clock shows twice is its first, and one that it leaves
    /// out is as much later as the clock was set forward.
    fn start(self, zone: &TimeZone) -> Result<Timestamp, CliError> {
        let clock = match self {
            Self::Instant(time) => return Ok(time),
            Self::Clock(clock) => clock,
            Self::Day(day) => day.to_datetime(jiff::civil::Time::midnight()),
        };
        zone.to_timestamp(clock).map_err(|_| out_of_range())
    }

    /// The first instant that is past it: for a day, the start of the next one.
    fn end(self, zone: &TimeZone) -> Result<Timestamp, CliError> {
        match self {
            Self::Day(day) => Self::Day(day.tomorrow().map_err(|_| out_of_range())?).start(zone),
            other => other.start(zone),
        }
    }
}

fn out_of_range() -> CliError {
    CliError::usage("a time of `--from` or `--until` is out of the range of times that there are")
}

/// From an instant on, to before another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) from: Timestamp,
    pub(super) until: Option<Timestamp>,
}

impl Period {
    /// Reads both in a zone; without `from` it begins `now`.
    pub(super) fn new(
        from: Option<When>,
        until: Option<When>,
        zone: &TimeZone,
        now: Timestamp,
    ) -> Result<Self, CliError> {
        let from = from.map(|from| from.start(zone)).transpose()?.unwrap_or(now);
        let until = until.map(|until| until.end(zone)).transpose()?;
        if let Some(until) = until.filter(|until| *until <= from) {
            return Err(CliError::usage(format!(
                "there is no time from {from} until {until}: `--until` has to be after `--from`, which is now \
                 where it is left out"
            )));
        }
        Ok(Self { from, until })
    }

    /// What comes after this is in the period, as far as its end allows.
    pub(super) fn before(self) -> Timestamp {
        self.from.checked_sub(SignedDuration::from_micros(1)).unwrap_or(Timestamp::MIN)
    }

    pub(super) fn has(self, time: Timestamp) -> bool {
        time >= self.from && self.until.is_none_or(|until| time < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_all_of_its_day_in_the_zone_and_a_time_is_itself() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let period = |from: &str, until: &str| {
            let period =
                Period::new(Some(from.parse().unwrap()), Some(until.parse().unwrap()), &zone, Timestamp::MIN);
            period.map(|period| (period.from.to_string(), period.until.unwrap().to_string()))
        };
        let day = ("2026-10-24T22:00:00Z".to_owned(), "2026-10-25T23:00:00Z".to_owned());
        assert_eq!(period("2026-10-25", "2026-10-25").unwrap(), day, "a day of 25 hours");
        assert_eq!(period("2026-10-25T00:00", "2026-10-26T00:00").unwrap(), day);
        assert_eq!(period("2026-10-24T22:00:00Z", "2026-10-26T00:00+01:00").unwrap(), day);
        assert!(period("2026-10-25", "2026-10-24").unwrap_err().message.contains("has to be after"));
    }

    #[test]
    fn what_is_no_time_is_told_what_to_write() {
        for text in ["tomorrow", "", "2026-13-01", "25.10.2026"] {
            assert!(text.parse::<When>().unwrap_err().contains("2026-10-25T02:30"), "{text}");
        }
    }
}
