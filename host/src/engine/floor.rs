//! Where a scan of `ready` or `waiting` begins, so that it does not walk over what was taken before.
//!
//! PostgreSQL keeps the index entries of deleted rows as long as any transaction may still see
//! them: a report that reads for ten minutes would make each claim as slow as everything that
//! was done meanwhile is long. So a claim begins at the lowest rank of the one before. What is
//! inserted below that (a retry with its old place in line, an execution of a higher priority)
//! is found by a scan of everything, which is made as often as it costs little of the time.

use std::time::{Duration, Instant};

/// A scan of everything took so long: the next one waits as many times longer.
const REST: u32 = 50;

/// Ranks are times in microseconds. Executions that are made at the same time do not become
/// visible in the order of their ranks; those that are later than this wait for the next scan of
/// everything.
pub(super) const SLACK: i64 = 50_000;

/// What becomes ready has been due for less than this, as a rule, by a clock that is kept in step with
/// the store's; what has not waits for the next scan of everything.
const RECENT: i64 = 2_000_000;

/// The floor of one queue, as this host knows it.
#[derive(Debug)]
pub(super) struct Floor {
    rank: Option<i64>,
    whole_at: Instant,
}

impl Floor {
    /// The next scan is one of everything.
    pub(super) fn new(now: Instant) -> Self {
        Self { rank: None, whole_at: now }
    }

    /// From where the scan that begins now is to look. None: everything.
    pub(super) fn of_scan(&self, now: Instant) -> Option<i64> {
        if now >= self.whole_at { None } else { self.rank }
    }

    /// Notes a scan that began at `floor`, how long it took, and the lowest rank that it found.
    pub(super) fn note(&mut self, floor: Option<i64>, began: Instant, took: Duration, lowest: Option<i64>) {
        if floor.is_none() {
            self.whole_at = began + took * (REST + 1);
        }
        if let Some(lowest) = lowest {
            self.rank = Some(lowest.saturating_sub(SLACK));
        }
    }

    /// Notes that up to `now`, in microseconds, there is only what has to wait for something that is
    /// looked for by itself.
    pub(super) fn only_waits(&mut self, now: i64) {
        let recent = now.saturating_sub(RECENT);
        self.rank = Some(self.rank.map_or(recent, |rank| rank.max(recent)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_scan_begins_where_the_one_before_found_something() {
        let start = Instant::now();
        let mut floor = Floor::new(start);
        assert_eq!(floor.of_scan(start), None, "the first looks at everything");
        floor.note(None, start, MILLISECOND, Some(10 * SLACK));
        assert_eq!(floor.of_scan(start + MILLISECOND), Some(9 * SLACK));
        floor.note(Some(9 * SLACK), start, MILLISECOND, None);
        assert_eq!(floor.of_scan(start + MILLISECOND), Some(9 * SLACK), "it found nothing above");
    }

    #[test]
    fn everything_is_looked_at_as_often_as_it_costs_two_percent_of_the_time() {
        let start = Instant::now();
        let mut floor = Floor::new(start);
        for (took, again) in [(MILLISECOND, 51 * MILLISECOND), (40 * MILLISECOND, 2_040 * MILLISECOND)] {
            floor.note(None, start, took, Some(0));
            assert!(floor.of_scan(start + again - MILLISECOND).is_some());
            assert_eq!(floor.of_scan(start + again), None);
        }
    }

    #[test]
    fn what_only_waits_is_not_walked_over_again() {
        let start = Instant::now();
        let mut floor = Floor::new(start);
        floor.note(None, start, MILLISECOND, Some(0));
        floor.only_waits(3 * RECENT);
        assert_eq!(floor.of_scan(start + MILLISECOND), Some(2 * RECENT));
        floor.only_waits(2 * RECENT);
        assert_eq!(floor.of_scan(start + MILLISECOND), Some(2 * RECENT), "a floor that was higher stays");
    }

    #[test]
    fn an_empty_queue_keeps_its_floor() {
        let start = Instant::now();
        let mut floor = Floor::new(start);
        floor.note(None, start, MILLISECOND, Some(10 * SLACK));
        floor.note(None, start, MILLISECOND, None);
        assert_eq!(floor.of_scan(start + MILLISECOND), Some(9 * SLACK));
    }
}
