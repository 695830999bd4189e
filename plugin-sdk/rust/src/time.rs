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
    fn times_are_rounded_down() {
        assert_eq!(to_micros(SystemTime::UNIX_EPOCH + Duration::from_nanos(1999)), 1);
        assert_eq!(to_micros(SystemTime::UNIX_EPOCH - Duration::from_nanos(1)), -1);
    }
}
