//! Dates and times as text, for every year that a database can hold.
//!
//! Pure. `jiff` ends at the year 9999, PostgreSQL in 294276 and 4713 BC; both count by the
//! proleptic Gregorian calendar.

const DAY: i64 = 86_400_000_000;

/// Days since 1970-01-01 of the year (0 is 1 BC), month and day.
pub(super) fn date(days: i64) -> (i64, u32, u32) {
    // Eras of 400 years, counted from the first of March of the year 0.
    let from_march = days + 719_468;
    let era = from_march.div_euclid(146_097);
    let day_of_era = from_march.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, u32::try_from(month).unwrap_or(0), u32::try_from(day).unwrap_or(0))
}

/// `2024-02-29`, years before 1 with ` BC` behind, as PostgreSQL writes them.
pub(super) fn date_text(days: i64) -> String {
    let (year, month, day) = date(days);
    if year > 0 {
        format!("{year:04}-{month:02}-{day:02}")
    } else {
        format!("{:04}-{month:02}-{day:02} BC", 1 - year)
    }
}

/// `HH:MM:SS`, and six digits behind it unless they are all zero: such texts sort as the times
/// do, and whole seconds read as SQLite's own functions write them.
pub(super) fn time_text(micros: i64) -> String {
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let text = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 { text } else { format!("{text}.{fraction:06}") }
}

/// `2024-02-29 12:34:56.789000` of microseconds since 1970-01-01T00:00:00, then `zone`, then
/// ` BC` where it applies.
pub(super) fn timestamp_text(micros: i64, zone: &str) -> String {
    let date = date_text(micros.div_euclid(DAY));
    let time = time_text(micros.rem_euclid(DAY));
    match date.strip_suffix(" BC") {
        Some(date) => format!("{date} {time}{zone} BC"),
        None => format!("{date} {time}{zone}"),
    }
}

/// The days of an ISO 8601 date.
pub(super) fn parse_date(text: &str) -> Option<i64> {
    let date: jiff::civil::Date = text.parse().ok()?;
    Some(days_of(date))
}

/// The microseconds of a time of day.
pub(super) fn parse_time(text: &str) -> Option<i64> {
    let time: jiff::civil::Time = text.parse().ok()?;
    Some(micros_of(time))
}

/// The microseconds of an ISO 8601 date and time without a zone.
pub(super) fn parse_timestamp(text: &str) -> Option<i64> {
    // A text with a zone names an instant, and is no such thing.
    if text.parse::<jiff::Timestamp>().is_ok() {
        return None;
    }
    let moment: jiff::civil::DateTime = text.parse().ok()?;
    Some(days_of(moment.date()) * DAY + micros_of(moment.time()))
}

/// The microseconds of an RFC 3339 instant.
pub(super) fn parse_instant(text: &str) -> Option<i64> {
    let instant: jiff::Timestamp = text.parse().ok()?;
    Some(instant.as_microsecond())
}

fn days_of(date: jiff::civil::Date) -> i64 {
    let epoch = jiff::civil::date(1970, 1, 1);
    // A span of days between two dates that exist, at most 20,000 years: it cannot fail.
    date.since(epoch).map_or(0, |span| i64::from(span.get_days()))
}

fn micros_of(time: jiff::civil::Time) -> i64 {
    let seconds = (i64::from(time.hour()) * 60 + i64::from(time.minute())) * 60 + i64::from(time.second());
    seconds * 1_000_000 + i64::from(time.subsec_nanosecond()) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_read_as_the_calendar_has_them() {
        for (days, text) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (19_782, "2024-02-29"),
            (-719_162, "0001-01-01"),
            (-719_163, "0001-12-31 BC"),
            (-719_528, "0001-01-01 BC"),
            (2_932_896, "9999-12-31"),
            (106_751_991, "294247-01-10"),
        ] {
            assert_eq!(date_text(days), text);
        }
    }

    #[test]
    fn every_day_that_jiff_knows_agrees_with_it() {
        let mut day = jiff::civil::date(-400, 1, 1);
        let mut days = days_of(day);
        while day.year() < 2400 {
            let (year, month, of_month) = date(days);
            assert_eq!((year, month, of_month), (day.year().into(), day.month() as u32, day.day() as u32));
            day = day.tomorrow().unwrap();
            days += 1;
        }
    }

    #[test]
    fn times_have_six_digits_or_none() {
        assert_eq!(time_text(0), "00:00:00");
        assert_eq!(time_text(45_296_000_001), "12:34:56.000001");
        assert_eq!(time_text(DAY), "24:00:00");
        assert_eq!(timestamp_text(-1, ""), "1969-12-31 23:59:59.999999");
        assert_eq!(timestamp_text(0, "+00"), "1970-01-01 00:00:00+00");
    }

    #[test]
    fn what_is_written_is_read_again() {
        for micros in [0, -1, 1_709_210_096_789_000, -62_135_596_800_000_000] {
            assert_eq!(parse_timestamp(&timestamp_text(micros, "")), Some(micros));
            assert_eq!(parse_instant(&timestamp_text(micros, "+00")), Some(micros));
        }
        assert_eq!(parse_date(&date_text(19_782)), Some(19_782));
        assert_eq!(parse_time("12:34:56.5"), Some(45_296_500_000));
        assert_eq!(parse_timestamp("2024-01-01T00:00:00Z"), None);
        assert_eq!(parse_instant("2024-01-01 00:00:00"), None);
    }
}
