//! When a job fires: from a schedule and an instant to the next one.
//!
//! Pure: no I/O, no clock. Everything that shows or records a fire time asks
//! [`Schedule::next_after`], so that a preview cannot differ from what happens.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use serde::{Deserialize, Serialize};

/// When a job fires, and in which time zone that is meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Spec", into = "Spec")]
pub struct Schedule {
    timing: Timing,
    zone: TimeZone,
}

#[derive(Clone, Debug, PartialEq)]
enum Timing {
    Cron(Box<Cron>, String),
    Every(Duration),
    At(Timestamp),
}

/// A schedule as it is written and kept: exactly one of the first three is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Five fields of cron: minute, hour, day of month, month, day of week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// A distance, counted from 1970-01-01T00:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
    /// A date and time, RFC 3339, or without an offset in the schedule's zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The IANA name of a time zone; UTC where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
}

/// What is wrong with a schedule, and in which of its keys.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ScheduleError {
    /// The key of the configuration that is wrong: `cron`, `every`, `at`, `timezone`, or
    /// none for the schedule as a whole.
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
    /// Where a part cannot be read, no or several of `cron`, `every` and `at` are given, or
    /// the expression can never fire (30 February).
    pub fn new(spec: &Spec) -> Result<Self, ScheduleError> {
        let zone = time_zone(spec.timezone.as_deref())?;
        let timing = match (&spec.cron, spec.every, &spec.at) {
            (Some(expression), None, None) => {
                Timing::Cron(Box::new(parse_cron(expression)?), expression.clone())
            }
            (None, Some(period), None) => Timing::Every(checked_period(period)?),
            (None, None, Some(text)) => Timing::At(parse_at(text, &zone)?),
            _ => {
                return Err(ScheduleError::new(
                    None,
                    "a schedule has exactly one of `cron`, `every` and `at`; leave `schedule` out for a job \
                     that runs by hand",
                ));
            }
        };
        Ok(Self { timing, zone })
    }

    /// The first fire time after `after`, or none if there is no further one.
    ///
    /// `every` counts in elapsed time. `cron` reads the clock of the time zone: a daily time
    /// that a clock change leaves out fires right after the change, one that happens twice
    /// fires the first time only, and an expression with a wildcard hour or minute goes on by
    /// elapsed time (the rule of Debian's cron, cron(8)).
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.timing {
            Timing::Every(period) => next_multiple(after, *period),
            Timing::At(at) => (*at > after).then_some(*at),
            Timing::Cron(cron, _) => {
                let next = cron.find_next_occurrence(&after.to_zoned(self.zone.clone()), false).ok()?;
                Some(next.timestamp())
            }
        }
    }

    /// The latest fire time in `first..=now`, where `first` is one; how missed fires become
    /// a single one.
    #[must_use]
    pub fn latest_until(&self, first: Timestamp, now: Timestamp) -> Timestamp {
        let mut latest = first;
        match &self.timing {
            Timing::Every(period) => latest = latest.max(last_multiple(now, *period).unwrap_or(first)),
            Timing::At(_) => {}
            Timing::Cron(cron, _) => {
                let start = now.to_zoned(self.zone.clone());
                if let Ok(previous) = cron.find_previous_occurrence(&start, true) {
                    latest = latest.max(previous.timestamp());
                }
            }
        }
        latest
    }

    /// For `every_after`.
    #[must_use]
    pub fn every_after(&self) -> Option<Duration> {
        None
    }

    /// For `every_after`.
    #[must_use]
    pub fn after_finish(&self, _finish: Timestamp) -> Option<Timestamp> {
        None
    }

    /// The zone in which fire times are shown.
    #[must_use]
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The schedule as an operator would write it.
    #[must_use]
    pub fn spec(&self) -> Spec {
        let mut spec = Spec {
            timezone: self.zone.iana_name().filter(|name| *name != "UTC").map(str::to_owned),
            ..Spec::default()
        };
        match &self.timing {
            Timing::Cron(_, expression) => spec.cron = Some(expression.clone()),
            Timing::Every(period) => spec.every = Some(*period),
            Timing::At(at) => spec.at = Some(at.to_string()),
        }
        spec
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.timing {
            Timing::Cron(_, expression) => write!(f, "cron \"{expression}\"")?,
            Timing::Every(period) => return write!(f, "every {}", humantime::format_duration(*period)),
            Timing::At(at) => return write!(f, "at {}", at.to_zoned(self.zone.clone())),
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
        schedule.spec()
    }
}

fn time_zone(name: Option<&str>) -> Result<TimeZone, ScheduleError> {
    let Some(name) = name else { return Ok(TimeZone::UTC) };
    TimeZone::get(name).map_err(|_| {
        let known = jiff::tz::db().available().map(|zone| zone.to_string()).collect::<Vec<_>>();
        let hint = crate::suggest::hint(name, known.iter().map(String::as_str));
        ScheduleError::new(
            "timezone",
            format!("`{name}` is not an IANA time zone such as `Europe/Berlin`{hint}"),
        )
    })
}

fn parse_cron(expression: &str) -> Result<Cron, ScheduleError> {
    let fields = expression.split_whitespace().count();
    if !expression.trim_start().starts_with('@') && fields != 5 {
        return Err(ScheduleError::new(
            "cron",
            format!(
                "`{expression}` has {fields} field{}, and a cron expression has five: minute, hour, day of \
                 month, month, day of week, as in `30 2 * * *`",
                if fields == 1 { "" } else { "s" }
            ),
        ));
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let cron = parser.parse(expression).map_err(|error| {
        ScheduleError::new("cron", format!("`{expression}` is not a cron expression: {error}"))
    })?;
    // A century without leap years is over by 2108: what does not fire until then never does.
    let start = civil::date(2000, 1, 1).at(0, 0, 0, 0).to_zoned(TimeZone::UTC);
    match start.map(|start| cron.find_next_occurrence(&start, true)) {
        Ok(Ok(_)) => Ok(cron),
        _ => Err(ScheduleError::new("cron", format!("`{expression}` never fires: no date matches it"))),
    }
}

fn checked_period(period: Duration) -> Result<Duration, ScheduleError> {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);
    if (SHORTEST..=LONGEST).contains(&period) && period.subsec_nanos().is_multiple_of(1_000) {
        Ok(period)
    } else {
        Err(ScheduleError::new("every", "`every` is a time from 100ms to 100 years, in whole microseconds"))
    }
}

fn parse_at(text: &str, zone: &TimeZone) -> Result<Timestamp, ScheduleError> {
    let zoned = || text.parse::<jiff::Zoned>().map(|time| time.timestamp());
    let local = || text.parse::<civil::DateTime>()?.to_zoned(zone.clone()).map(|time| time.timestamp());
    let time = text.parse::<Timestamp>().or_else(|_| zoned()).or_else(|_| local());
    // The store keeps microseconds.
    let time = time.and_then(|time| Timestamp::from_microsecond(time.as_microsecond()));
    time.map_err(|_| {
        ScheduleError::new(
            "at",
            format!(
                "`{text}` is not a date and time such as `2026-12-24T08:00:00+01:00` or `2026-12-24T08:00`"
            ),
        )
    })
}

fn next_multiple(after: Timestamp, period: Duration) -> Option<Timestamp> {
    let period = micros(period)?;
    let next = after.as_microsecond().div_euclid(period).checked_add(1)?.checked_mul(period)?;
    Timestamp::from_microsecond(next).ok()
}

fn last_multiple(until: Timestamp, period: Duration) -> Option<Timestamp> {
    let period = micros(period)?;
    Timestamp::from_microsecond(until.as_microsecond().div_euclid(period) * period).ok()
}

fn micros(period: Duration) -> Option<i64> {
    i64::try_from(period.as_micros()).ok().filter(|micros| *micros > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cron(expression: &str, zone: &str) -> Schedule {
        Schedule::new(&Spec { cron: Some(expression.into()), timezone: Some(zone.into()), ..Spec::default() })
            .unwrap()
    }

    fn fires(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
        let mut time: Timestamp = after.parse().unwrap();
        let mut fires = Vec::new();
        while fires.len() < count {
            let Some(next) = schedule.next_after(time) else { break };
            fires.push(next.to_string());
            time = next;
        }
        fires
    }

    #[test]
    fn cron_reads_the_clock_of_its_zone() {
        let berlin = cron("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            fires(&berlin, "2026-07-01T00:00:00Z", 2),
            ["2026-07-01T00:30:00Z", "2026-07-02T00:30:00Z"]
        );
        let utc = cron("30 2 * * *", "UTC");
        assert_eq!(fires(&utc, "2026-07-01T00:00:00Z", 1), ["2026-07-01T02:30:00Z"]);
    }

    #[test]
    fn a_daily_time_in_the_gap_fires_right_after_it_and_a_repeated_one_once() {
        let berlin = cron("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            fires(&berlin, "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            fires(&berlin, "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
    }

    #[test]
    fn a_wildcard_goes_on_through_both_of_the_repeated_hours() {
        let berlin = cron("30 * * * *", "Europe/Berlin");
        assert_eq!(
            fires(&berlin, "2026-10-25T00:00:00Z", 3),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]
        );
    }

    #[test]
    fn restricted_days_of_month_and_week_combine_by_or() {
        let either = cron("0 0 13 * FRI", "UTC");
        assert_eq!(
            fires(&either, "2026-11-01T00:00:00Z", 3),
            ["2026-11-06T00:00:00Z", "2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z"]
        );
    }

    #[test]
    fn every_counts_from_the_epoch() {
        let every = Schedule::new(&Spec { every: Some(Duration::from_secs(90)), ..Spec::default() }).unwrap();
        assert_eq!(
            fires(&every, "1970-01-01T00:00:00Z", 2),
            ["1970-01-01T00:01:30Z", "1970-01-01T00:03:00Z"]
        );
        assert_eq!(fires(&every, "1969-12-31T23:59:59Z", 1), ["1970-01-01T00:00:00Z"]);
    }

    #[test]
    fn at_fires_once_with_an_offset_or_in_the_zone() {
        for (text, zone) in [
            ("2026-12-24T08:00:00+01:00", "UTC"),
            ("2026-12-24T08:00", "Europe/Berlin"),
            ("2026-12-24T07:00:00Z", "UTC"),
        ] {
            let at = Schedule::new(&Spec {
                at: Some(text.into()),
                timezone: Some(zone.into()),
                ..Spec::default()
            })
            .unwrap();
            assert_eq!(fires(&at, "2026-01-01T00:00:00Z", 2), ["2026-12-24T07:00:00Z"], "{text}");
        }
    }

    #[test]
    fn of_missed_fires_the_latest_is_kept() {
        let first: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        let now: Timestamp = "2026-11-03T12:34:56Z".parse().unwrap();
        assert_eq!(cron("0 * * * *", "UTC").latest_until(first, now).to_string(), "2026-11-03T12:00:00Z");
        let every =
            Schedule::new(&Spec { every: Some(Duration::from_secs(3600)), ..Spec::default() }).unwrap();
        assert_eq!(every.latest_until(first, now).to_string(), "2026-11-03T12:00:00Z");
        assert_eq!(every.latest_until(first, first), first);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_key_that_is_wrong() {
        let message = |spec: Spec| {
            let error = Schedule::new(&spec).unwrap_err();
            (error.key, error.message)
        };
        let with_cron = |text: &str| message(Spec { cron: Some(text.into()), ..Spec::default() });
        assert!(with_cron("61 * * * *").1.contains("is not a cron expression"));
        assert!(with_cron("* * *").1.contains("has 3 fields"));
        assert_eq!(
            with_cron("0 0 30 2 *"),
            (Some("cron"), "`0 0 30 2 *` never fires: no date matches it".into())
        );
        let (key, text) = message(Spec {
            every: Some(Duration::from_secs(1)),
            timezone: Some("Europe/Berlim".into()),
            ..Spec::default()
        });
        assert_eq!(key, Some("timezone"));
        assert!(text.contains("did you mean `Europe/Berlin`"), "{text}");
        assert_eq!(message(Spec::default()).0, None);
        assert_eq!(message(Spec { at: Some("tomorrow".into()), ..Spec::default() }).0, Some("at"));
        assert_eq!(message(Spec { every: Some(Duration::ZERO), ..Spec::default() }).0, Some("every"));
    }

    #[test]
    fn a_schedule_survives_being_stored() {
        for schedule in [
            cron("30 2 * * MON-FRI", "America/New_York"),
            Schedule::new(&Spec { every: Some(Duration::from_millis(1500)), ..Spec::default() }).unwrap(),
            Schedule::new(&Spec { at: Some("2026-12-24T07:00:00Z".into()), ..Spec::default() }).unwrap(),
        ] {
            let text = serde_json::to_string(&schedule).unwrap();
            assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_next_fire_is_always_later(seconds in 0i64..4_000_000_000, which in 0usize..4) {
            let schedule = [cron("*/7 3-5 * * *", "Europe/Berlin"), cron("0 0 29 2 *", "UTC"), cron("30 1 * * *", "Australia/Lord_Howe"), cron("15 * * * 1", "America/Sao_Paulo")][which].clone();
            let after = Timestamp::from_second(seconds).unwrap();
            let next = schedule.next_after(after).unwrap();
            prop_assert!(next > after);
            prop_assert!(schedule.latest_until(next, next) == next);
        }
    }
}
