//! The ways in which a web application stores a time, and the SQL that finds the rows whose time
//! is before a cutoff.
//!
//! The rule is the same for all: a row is found when its time is certainly before the cutoff.
//! A column that keeps whole seconds may have had a fraction cut off, so there a row is found
//! once its whole second is over.

use std::str::FromStr;

use innkeeper_sdk::db::Value;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// How a column stores times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    /// PostgreSQL's `timestamptz`.
    Timestamp,
    /// PostgreSQL's `timestamp`, in UTC.
    TimestampWithoutZone,
    /// `2026-01-31 23:59:59` or `2026-01-31T23:59:59`, in UTC, with or without a fraction and a `Z`.
    Text,
    /// Seconds since 1970, as a number.
    Seconds,
    /// Milliseconds since 1970, as a number.
    Milliseconds,
}

impl TimeFormat {
    /// True for the formats that are types of PostgreSQL.
    #[must_use]
    pub fn needs_postgres(self) -> bool {
        matches!(self, Self::Timestamp | Self::TimestampWithoutZone)
    }

    /// The condition that the time in `column` is before `cutoff` (microseconds since 1970), and
    /// its parameters, which are numbered from `$1`. NULL is never before it.
    #[must_use]
    pub fn before(self, column: &str, cutoff: i64) -> (String, Vec<Value>) {
        match self {
            Self::Timestamp => (format!("{column} < $1"), vec![Value::Instant(cutoff)]),
            Self::TimestampWithoutZone => (format!("{column} < $1"), vec![Value::Timestamp(cutoff)]),
            Self::Seconds => number_before(column, cutoff.div_euclid(MICROS_PER_SECOND)),
            Self::Milliseconds => number_before(column, cutoff.div_euclid(1000)),
            Self::Text => text_before(column, cutoff.div_euclid(MICROS_PER_SECOND)),
        }
    }
}

/// The cast gives the parameter one type whatever number type the column has, and makes SQLite
/// compare as numbers. Zero is a common way to say "never".
fn number_before(column: &str, cutoff: i64) -> (String, Vec<Value>) {
    let condition = format!("{column} < cast($1 as bigint) and {column} > 0");
    (condition, vec![Value::Integer(cutoff)])
}

/// Compares the first 19 characters, which all the forms have in common but for the separator;
/// what follows them is at most a fraction of that second.
///
/// - `$1` is the day after the cutoff's. The first comparison loses no row, and an index on the
///   column can serve it.
/// - SQLite takes any number to be less than any text, and a column may hold text of other
///   kinds: only what looks like a time is compared.
/// - A time with a zone behind UTC, such as `-05:00`, is later than it reads. It is never found.
fn text_before(column: &str, cutoff: i64) -> (String, Vec<Value>) {
    let condition = format!(
        "{column} < $1 \
         and replace(substr({column}, 1, 19), 'T', ' ') < $2 \
         and ({column} like '____-__-__ __:__:__%' or {column} like '____-__-__T__:__:__%') \
         and substr({column}, 20) not like '%-%'"
    );
    let day_after = date(cutoff.div_euclid(SECONDS_PER_DAY) + 1);
    (condition, vec![Value::Text(day_after), Value::Text(date_and_time(cutoff))])
}

/// `YYYY-MM-DD HH:MM:SS` in UTC, for seconds since 1970.
fn date_and_time(seconds: i64) -> String {
    let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{} {hour:02}:{minute:02}:{second:02}", date(seconds.div_euclid(SECONDS_PER_DAY)))
}

/// `YYYY-MM-DD` in the Gregorian calendar, for days since 1970-01-01.
///
/// Counts from 0000-03-01, so that the leap day is the last of its year; 400 years have 146,097
/// days, and the months from March on have 153 days in five.
fn date(days: i64) -> String {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

impl FromStr for TimeFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "timestamp" => Ok(Self::Timestamp),
            "timestamp-without-zone" => Ok(Self::TimestampWithoutZone),
            "text" => Ok(Self::Text),
            "seconds" => Ok(Self::Seconds),
            "milliseconds" => Ok(Self::Milliseconds),
            _ => Err("it must be \"timestamp\", \"timestamp-without-zone\", \"text\", \"seconds\" or \
                      \"milliseconds\""
                .to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-01T00:00:00.5Z.
    const CUTOFF: i64 = 1_772_323_200_500_000;

    fn params(format: TimeFormat, cutoff: i64) -> Vec<Value> {
        format.before("c", cutoff).1
    }

    #[test]
    fn dates_are_those_of_the_gregorian_calendar() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(-1), "1969-12-31");
        assert_eq!(date(11_016), "2000-02-29");
        assert_eq!(date(11_017), "2000-03-01");
        assert_eq!(date(20_512), "2026-02-28");
        assert_eq!(date(20_513), "2026-03-01");
        assert_eq!(date(-25_509), "1900-02-28");
        assert_eq!(date(-25_508), "1900-03-01");
        assert_eq!(date_and_time(1_772_323_199), "2026-02-28 23:59:59");
        assert_eq!(date_and_time(-1), "1969-12-31 23:59:59");
    }

    #[test]
    fn times_with_a_type_are_compared_exactly() {
        assert_eq!(params(TimeFormat::Timestamp, CUTOFF), [Value::Instant(CUTOFF)]);
        assert_eq!(params(TimeFormat::TimestampWithoutZone, CUTOFF), [Value::Timestamp(CUTOFF)]);
    }

    #[test]
    fn whole_seconds_are_found_only_once_they_are_over() {
        assert_eq!(params(TimeFormat::Seconds, CUTOFF), [Value::Integer(1_772_323_200)]);
        assert_eq!(params(TimeFormat::Milliseconds, CUTOFF), [Value::Integer(1_772_323_200_500)]);
        assert_eq!(params(TimeFormat::Seconds, -1), [Value::Integer(-1)]);
        let text = params(TimeFormat::Text, CUTOFF);
        assert_eq!(text, [Value::Text("2026-03-02".into()), Value::Text("2026-03-01 00:00:00".into())]);
    }

    #[test]
    fn a_number_that_is_not_positive_is_no_time() {
        let (condition, _) = TimeFormat::Seconds.before("t.\"x\"", CUTOFF);
        assert_eq!(condition, "t.\"x\" < cast($1 as bigint) and t.\"x\" > 0");
    }

    #[test]
    fn a_format_that_is_not_known_is_refused_with_those_that_are() {
        assert_eq!("seconds".parse(), Ok(TimeFormat::Seconds));
        assert_eq!("timestamp-without-zone".parse(), Ok(TimeFormat::TimestampWithoutZone));
        let error = "Seconds".parse::<TimeFormat>().unwrap_err();
        assert!(error.contains("\"seconds\" or \"milliseconds\""), "{error}");
    }
}
