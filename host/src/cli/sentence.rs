//! Pieces of the sentences that commands answer with.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `1 execution`, `2 executions`.
pub(super) fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// `a`, `b` and `c`, with `last` before the last one.
pub(super) fn list(parts: &[String], last: &str) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., end] => format!("{} {last} {end}", first.join(", ")),
    }
}

/// Names in backticks.
pub(super) fn names<T: std::fmt::Display>(names: &[T], last: &str) -> String {
    list(&names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>(), last)
}

/// A span of time as it is configured.
pub(super) fn span(span: Duration) -> String {
    // A day of humantime has 24 hours; its months and years are no whole days, and nobody writes them.
    match span.as_secs() {
        secs if secs >= 86_400 && secs % 86_400 == 0 => format!("{}d", secs / 86_400),
        _ => humantime::format_duration(span).to_string(),
    }
}

/// `in 3h 20m`, `12s ago`, `now`: two units are enough to see what is meant.
pub(super) fn from_now(time: Timestamp, now: Timestamp) -> String {
    let micros = time.as_microsecond() - now.as_microsecond();
    let rough = rough(Duration::from_micros(micros.unsigned_abs()));
    match micros {
        _ if rough.is_zero() => "now".to_owned(),
        1.. => format!("in {}", span(rough)),
        _ => format!("{} ago", span(rough)),
    }
}

fn rough(span: Duration) -> Duration {
    let seconds = span.as_secs() + u64::from(span.subsec_millis() >= 500);
    let step = match seconds {
        0..3_600 => 1,
        3_600..86_400 => 60,
        86_400..864_000 => 3_600,
        _ => 86_400,
    };
    Duration::from_secs(seconds / step * step)
}

/// What a clock of the zone shows, and its offset.
pub(super) fn local(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string()
}

/// A time in UTC, as exact as anybody wants to read.
pub(super) fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A time in UTC, and how far away it is.
pub(super) fn dated(time: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", moment(time), from_now(time, now))
}

/// What a clock of the zone shows, the same in UTC where that differs, and how far away it is.
pub(super) fn at_in_zone(time: Timestamp, zone: &TimeZone, now: Timestamp) -> String {
    let shown = time.to_zoned(zone.clone()).strftime("%A %Y-%m-%d %H:%M:%S");
    match zone_name(zone) {
        "UTC" => format!("{shown} UTC ({})", from_now(time, now)),
        name => format!("{shown} {name} ({}, {})", moment(time), from_now(time, now)),
    }
}

pub(super) fn zone_name(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_listed_as_in_a_sentence() {
        assert_eq!(names(&["a"], "and"), "`a`");
        assert_eq!(names(&["a", "b", "c"], "or"), "`a`, `b` or `c`");
    }

    #[test]
    fn a_distance_is_as_exact_as_anybody_wants_to_read() {
        let now = time("2026-03-01T00:00:00Z");
        assert_eq!(from_now(time("2026-03-01T00:00:41.7Z"), now), "in 42s");
        assert_eq!(from_now(time("2026-02-28T20:39:48Z"), now), "3h 20m ago");
        assert_eq!(from_now(time("2026-03-04T05:06:07Z"), now), "in 3days 5h");
        assert_eq!(from_now(time("2026-03-31T05:06:07Z"), now), "in 30d");
        assert_eq!(from_now(now, now), "now");
    }

    #[test]
    fn a_time_is_shown_in_its_zone_and_in_utc() {
        let (time, now) = (time("2026-07-01T00:30:00.25Z"), time("2026-06-30T22:30:00Z"));
        assert_eq!(
            at_in_zone(time, &TimeZone::get("Europe/Berlin").unwrap(), now),
            "Wednesday 2026-07-01 02:30:00 Europe/Berlin (2026-07-01 00:30:00 UTC, in 2h)"
        );
        assert_eq!(at_in_zone(time, &TimeZone::UTC, now), "Wednesday 2026-07-01 00:30:00 UTC (in 2h)");
    }
}
