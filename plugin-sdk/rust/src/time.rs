//! Between `SystemTime` and the microseconds of the plugin interface.

use std::time::{Duration, SystemTime};

/// The time that is this many microseconds after 1970-01-01T00:00:00Z, or before it.
pub(crate) fn from_micros(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    if micros < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

/// Microseconds since 1970-01-01T00:00:00Z, rounded down; times that are out of range become the
/// first or the last one in range (year 294247).
pub(crate) fn to_micros(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(error) => {
            let before = error.duration().as_nanos().div_ceil(1000);
            i64::try_from(before).map_or(i64::MIN, |micros| -micros)
        }
    }
}

/// Microseconds since 1970-01-01T00:00:00Z of `2024-02-29 12:34:56`, with at most six digits of a
/// fraction: how SQLite's functions and Innkeeper write an instant as text. A `T` may stand in the
/// middle and a `Z` at the end. Every text that is anything else is refused.
pub(crate) fn parse_utc(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once([' ', 'T'])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    if fraction.is_empty() {
        return None;
    }
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let [fraction] = numbers(&format!("{fraction:0<6}"), '.', [6])?;
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days_of_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days_of_month).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Years begin in March, so that a leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = 365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + fraction)
}

/// Numbers of so many digits each, and nothing else between the separators.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut found = [0; N];
    for (number, digits) in found.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_survive_the_way_to_a_system_time_and_back() {
        for micros in [0, 1, -1, 1_790_000_000_123_456, -62_135_596_800_000_000] {
            assert_eq!(to_micros(from_micros(micros)), micros);
        }
    }

    #[test]
    fn an_instant_is_read_from_the_text_that_it_is_stored_as() {
        for (text, micros) in [
            ("1970-01-01 00:00:00", 0),
            ("2024-02-29 12:34:56.789000", 1_709_210_096_789_000),
            ("2024-02-29T12:34:56.789Z", 1_709_210_096_789_000),
            ("1969-12-31 23:59:59.999999", -1),
            ("0000-01-01 00:00:00", -62_167_219_200_000_000),
            ("9999-12-31 23:59:59.999999", 253_402_300_799_999_999),
        ] {
            assert_eq!(parse_utc(text), Some(micros), "{text}");
        }
        for text in [
            "",
            "now",
            "2024-02-29",
            "12:34:56",
            "2024-02-29 12:34",
            "2023-02-29 12:34:56",
            "2024-13-01 12:34:56",
            "2024-00-01 12:34:56",
            "2024-01-00 12:34:56",
            "2024-01-01 24:00:00",
            "2024-01-01 12:34:60",
            "2024-01-01 12:34:56.1234567",
            "2024-01-01 12:34:56.",
            "2024-01-01 12:34:56+02",
            "+024-01-01 12:34:56",
            "12024-01-01 12:34:56",
            "2024-01-01-01 12:34:56",
        ] {
            assert_eq!(parse_utc(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_rounded_down() {
        assert_eq!(to_micros(SystemTime::UNIX_EPOCH + Duration::from_nanos(1999)), 1);
        assert_eq!(to_micros(SystemTime::UNIX_EPOCH - Duration::from_nanos(1)), -1);
    }
}
