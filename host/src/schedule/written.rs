//! Dates and times as operators write them.

use jiff::civil::{Date, DateTime};
use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::ScheduleError;
use super::spec::{Gap, Overlap};
use super::wall::{self, Shown};

/// What a text says.
enum Written {
    Instant(Timestamp),
    /// What a clock shows in a zone.
    Clock(DateTime, TimeZone),
    Day(Date),
}

/// One or two instants of `at`, and the text to keep.
pub(super) type At = (Timestamp, Option<Timestamp>, String);

/// Reads `at`.
pub(super) fn at(text: &str, zone: &TimeZone, gap: Gap, overlap: Overlap) -> Result<At, ScheduleError> {
    let (clock, zone) = match read("at", text, zone)? {
        Written::Instant(time) => return Ok((time, None, time.to_string())),
        Written::Clock(clock, zone) => (clock, zone),
        Written::Day(date) => (date.to_datetime(jiff::civil::Time::midnight()), zone.clone()),
    };
    let mut meant = wall::meant(&zone, clock, gap, overlap);
    match (meant.next(), meant.next()) {
        (Some(time), None) => {
            let time = truncated("at", text, time)?;
            Ok((time, None, time.to_string()))
        }
        (Some(first), Some(last)) => {
            Ok((truncated("at", text, first)?, Some(truncated("at", text, last)?), text.to_owned()))
        }
        (None, _) => Err(match wall::shown(&zone, clock) {
            Some(Shown::Never(change)) => ScheduleError::new(
                "at",
                format!(
                    "`{text}` never comes: the clock goes from {} to {} then, and `gap = \"skip\"` leaves out what \
                     is between them",
                    change.from(),
                    change.to()
                ),
            ),
            _ => out_of_range("at", text),
        }),
    }
}

/// Reads `anchor`.
pub(super) fn anchor(text: &str, zone: &TimeZone) -> Result<Timestamp, ScheduleError> {
    first("anchor", text, zone)
}

/// Reads `not_before`: the first instant that it allows.
pub(super) fn not_before(text: &str, zone: &TimeZone) -> Result<Timestamp, ScheduleError> {
    first("not_before", text, zone)
}

/// Reads `not_after`: the last instant that it allows.
pub(super) fn not_after(text: &str, zone: &TimeZone) -> Result<Timestamp, ScheduleError> {
    let time = match read("not_after", text, zone)? {
        Written::Instant(time) => Some(time),
        Written::Clock(clock, zone) => wall::shown(&zone, clock).and_then(|shown| match shown {
            Shown::Once(time) | Shown::Twice(_, time) => Some(time),
            Shown::Never(change) => wall::before(change.at),
        }),
        Written::Day(date) => wall::end_of(zone, date),
    };
    truncated("not_after", text, time.ok_or_else(|| out_of_range("not_after", text))?)
}

fn first(key: &'static str, text: &str, zone: &TimeZone) -> Result<Timestamp, ScheduleError> {
    let time = match read(key, text, zone)? {
        Written::Instant(time) => Some(time),
        Written::Clock(clock, zone) => wall::first_shown(&zone, clock),
        Written::Day(date) => wall::start_of(zone, date),
    };
    truncated(key, text, time.ok_or_else(|| out_of_range(key, text))?)
}

fn read(key: &'static str, text: &str, zone: &TimeZone) -> Result<Written, ScheduleError> {
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
        && let Ok(date) = text.parse::<Date>()
    {
        return Ok(Written::Day(date));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Written::Instant(truncated(key, text, time)?));
    }
    if let Ok(time) = text.parse::<Zoned>() {
        // Without an offset, which of two instants is meant is for `gap` and `overlap` to say.
        let says_offset = Pieces::parse(text).is_ok_and(|pieces| pieces.offset().is_some());
        return Ok(match says_offset {
            true => Written::Instant(truncated(key, text, time.timestamp())?),
            false => clock_of(text).map_or(Written::Instant(time.timestamp()), |clock| {
                Written::Clock(clock, time.time_zone().clone())
            }),
        });
    }
    clock_of(text).map(|clock| Written::Clock(clock, zone.clone())).ok_or_else(|| {
        ScheduleError::new(
            key,
            format!(
                "`{text}` is not a date and time such as `2026-12-24T08:00:00+01:00` or `2026-12-24T08:00`"
            ),
        )
    })
}

fn clock_of(text: &str) -> Option<DateTime> {
    text.parse().ok()
}

/// The store keeps microseconds.
fn truncated(key: &'static str, text: &str, time: Timestamp) -> Result<Timestamp, ScheduleError> {
    Timestamp::from_microsecond(time.as_microsecond()).map_err(|_| out_of_range(key, text))
}

fn out_of_range(key: &'static str, text: &str) -> ScheduleError {
    ScheduleError::new(key, format!("`{text}` is too far away: years are from -9999 to 9999"))
}
