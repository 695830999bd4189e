//! Makes a schedule of what an operator wrote, or says why it cannot.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::interval::{Interval, micros};
use super::spec::{Gap, Overlap, Spec, WhenExcluded};
use super::{Schedule, ScheduleError, Timing, expression, wall, written};
use crate::calendar::Days;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);
const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn schedule(spec: &Spec) -> Result<Schedule, ScheduleError> {
    let zone = time_zone(spec.timezone.as_deref())?;
    let days = days(spec)?;
    refuse_what_has_no_meaning(spec)?;
    let mut kept = Box::new(spec.clone());
    kept.timezone = zone.iana_name().filter(|name| *name != "UTC").map(str::to_owned);
    kept.jitter = spec.jitter.filter(|jitter| !jitter.is_zero());
    let mut named = kept.jitter.is_some();
    let timing = match (&spec.cron, spec.every, spec.every_after, &spec.at) {
        (Some(expression), None, None, None) => {
            let read = expression::read(expression, spec.name.as_deref())?;
            named |= read.hashed;
            Timing::Cron(Box::new(read.pattern))
        }
        (None, Some(period), None, None) => Timing::Every(interval(period, spec, &zone)?),
        (None, None, Some(period), None) => {
            checked("every_after", period, SHORTEST)?;
            Timing::EveryAfter(period)
        }
        (None, None, None, Some(text)) => {
            let (at, again, text) = written::at(text, &zone, spec.gap, spec.overlap)?;
            kept.at = Some(text);
            let (at, again) = on_allowed_days(spec, &zone, days.as_deref(), (at, again))?;
            Timing::At(at, again)
        }
        _ => {
            return Err(ScheduleError::new(
                None,
                "a schedule has exactly one of `cron`, `every`, `every_after` and `at`; leave `schedule` out for a \
                 job that runs by hand",
            ));
        }
    };
    let jitter = match kept.jitter {
        None => 0,
        Some(jitter) => {
            checked("jitter", jitter, Duration::from_micros(1))?;
            micros(jitter).unwrap_or(0)
        }
    };
    if kept.jitter.is_some() && spec.name.is_none() {
        return Err(ScheduleError::new(
            "jitter",
            "`jitter` is drawn from the name of the job, and here is none",
        ));
    }
    kept.name = spec.name.clone().filter(|_| named);
    let not_before = spec.not_before.as_deref().map(|text| written::not_before(text, &zone)).transpose()?;
    let not_after = spec.not_after.as_deref().map(|text| written::not_after(text, &zone)).transpose()?;
    if let (Some(first), Some(last)) = (not_before, not_after)
        && first > last
    {
        return Err(ScheduleError::new(
            "not_after",
            "`not_after` is before `not_before`: nothing would ever fire",
        ));
    }
    let schedule = Schedule { spec: kept, timing, zone, days, jitter, not_before, not_after };
    if schedule.is_never_allowed() {
        return Err(ScheduleError::new(
            "calendars",
            format!("it never fires: {} all of its days", excluded_by(&schedule.spec)),
        ));
    }
    Ok(schedule)
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

fn days(spec: &Spec) -> Result<Option<Box<Days>>, ScheduleError> {
    if spec.calendars.is_empty() {
        return Ok(None);
    }
    for calendar in &spec.calendars {
        calendar.check().map_err(|error| {
            ScheduleError::new("calendars", format!("calendar `{}`: {error}", calendar.name))
        })?;
    }
    let days = Days::new(&spec.calendars);
    if days.is_empty() {
        return Err(ScheduleError::new("calendars", "no day is allowed by all of these calendars"));
    }
    Ok(Some(Box::new(days)))
}

fn refuse_what_has_no_meaning(spec: &Spec) -> Result<(), ScheduleError> {
    let error = |key, message: &str| Err(ScheduleError::new(key, message));
    if spec.anchor.is_some() && spec.every.is_none() {
        return error("anchor", "`anchor` is what `every` counts from, and here is no `every`");
    }
    let jitter = spec.jitter.is_some_and(|jitter| !jitter.is_zero());
    if jitter && spec.cron.is_none() && spec.every.is_none() {
        return error("jitter", "`jitter` is for `cron` and `every`");
    }
    if spec.when_excluded != WhenExcluded::Skip && spec.calendars.is_empty() {
        return error("when_excluded", "`when_excluded` is about `calendars`, and here are none");
    }
    let moves_intervals = spec.when_excluded == WhenExcluded::NextDay && spec.every.is_some();
    if moves_intervals && spec.every.is_some_and(|period| period < DAY) {
        return error(
            "when_excluded",
            "`every` fires on the next allowed day anyway, where it is shorter than a day: leave `when_excluded` out",
        );
    }
    if spec.cron.is_none() && spec.at.is_none() && !moves_intervals {
        let why = "is about times of a clock, and this schedule counts elapsed time";
        if spec.gap != Gap::default() {
            return error("gap", &format!("`gap` {why}"));
        }
        if spec.overlap != Overlap::default() {
            return error("overlap", &format!("`overlap` {why}"));
        }
    }
    Ok(())
}

fn interval(period: Duration, spec: &Spec, zone: &TimeZone) -> Result<Interval, ScheduleError> {
    let period = checked("every", period, SHORTEST)?;
    let anchor = spec.anchor.as_deref().map(|text| written::anchor(text, zone)).transpose()?;
    Ok(Interval { anchor: anchor.map_or(0, Timestamp::as_microsecond), period })
}

/// In microseconds.
fn checked(key: &'static str, period: Duration, shortest: Duration) -> Result<i64, ScheduleError> {
    let whole = period.subsec_nanos().is_multiple_of(1_000);
    micros(period).filter(|_| whole && (shortest..=LONGEST).contains(&period)).ok_or_else(|| {
        let shortest = humantime::format_duration(shortest);
        ScheduleError::new(
            key,
            format!("`{key}` is a time from {shortest} to 100 years, in whole microseconds"),
        )
    })
}

type Ats = (Timestamp, Option<Timestamp>);

/// Leaves out or moves `at` where a calendar excludes its day.
fn on_allowed_days(
    spec: &Spec,
    zone: &TimeZone,
    days: Option<&Days>,
    (at, again): Ats,
) -> Result<Ats, ScheduleError> {
    let Some(days) = days else { return Ok((at, again)) };
    let mut fires = Vec::new();
    for time in [Some(at), again].into_iter().flatten() {
        let clock = wall::clock(zone, time);
        let Some(date) = days.next(clock.date()) else { continue };
        if date == clock.date() {
            fires.push(time);
        } else if spec.when_excluded == WhenExcluded::NextDay {
            fires.extend(wall::meant(zone, date.to_datetime(clock.time()), spec.gap, spec.overlap));
        }
    }
    fires.sort_unstable();
    fires.dedup();
    match fires.as_slice() {
        [] => Err(ScheduleError::new(
            "at",
            format!("it never fires: {} {}", excluded_by(spec), wall::clock(zone, at).date()),
        )),
        [at, rest @ ..] => Ok((*at, rest.first().copied())),
    }
}

fn excluded_by(spec: &Spec) -> String {
    let names: Vec<String> = spec.calendars.iter().map(|calendar| format!("`{}`", calendar.name)).collect();
    match names.as_slice() {
        [name] => format!("calendar {name} excludes"),
        _ => format!("the calendars {} exclude", names.join(", ")),
    }
}
