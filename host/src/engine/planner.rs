//! Makes executions of the jobs that are due, and lets start what has waited long enough.
//!
//! There is no leader: every host plans, and whoever comes first inserts the execution, which
//! is unique for its job and fire time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::floor::Floor;
use super::{Engine, STORE_RETRY, StoreWatch};
use crate::clock;
use crate::store::Admitted;

/// Jobs and waiting executions that one transaction takes on.
const BATCH: u32 = 500;

/// How long the planner sleeps at most: another host may have written jobs that are due
/// earlier than any that was known.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

pub(super) async fn run(engine: Arc<Engine>) {
    let mut watch = StoreWatch::new(&engine);
    let mut told = HashSet::new();
    let mut floor = Floor::new(Instant::now());
    let mut clocks = ClockWatch::default();
    while !engine.drain.is_cancelled() {
        let (from, began) = (floor.of_scan(Instant::now()), Instant::now());
        let asked = clock::since_boot();
        let planned = watch.note("plan", engine.store.plan_from(BATCH, from).await);
        if let Some(planned) = &planned {
            floor.note(from, began, began.elapsed(), planned.lowest_due);
        }
        let pause = match &planned {
            Some(planned) => {
                for fired in &planned.fired {
                    tracing::debug!(job = %fired.job, execution = %fired.execution, fire_time = %fired.fire_time, "fired");
                }
                if planned.admitted.skipped > 0 || planned.admitted.replaced > 0 {
                    let Admitted { skipped, replaced, .. } = planned.admitted;
                    tracing::info!(skipped, replaced, "executions gave way to the limits of their jobs");
                }
                if planned.admitted.replaced > 0 {
                    engine.cancels.notify_one();
                }
                if planned.did_something() {
                    engine.ready.notify_one();
                    engine.others.notify_one();
                }
                for error in &planned.unreadable {
                    if told.insert(error.clone()) {
                        tracing::error!(error, "a due job cannot fire");
                    }
                }
                clocks.note(planned.now, asked, clock::since_boot());
                planned.next_due.map_or(LONGEST_SLEEP, |wait| wait.min(LONGEST_SLEEP))
            }
            None => STORE_RETRY,
        };
        if clocks.went_back
            && let Some(jobs) = watch.note("plan anew", engine.store.turn_back().await)
        {
            tracing::warn!(
                jobs,
                "the store's clock was set back: jobs that were planned for later fire from now on"
            );
            clocks.went_back = false;
            // Nothing is to be slept over that has become due.
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = engine.due.notified() => {}
            () = engine.drain.cancelled() => {}
        }
    }
}

/// Notices that the store's clock was set back, by the time that has passed since boot.
#[derive(Debug, Default)]
struct ClockWatch {
    /// Seconds of the store's clock at boot, at least: whatever time the answers took.
    boot_at_least: Option<f64>,
    /// It was, and nothing has been done about it yet.
    went_back: bool,
}

impl ClockWatch {
    /// Less than this is the rate of a clock that is being corrected.
    const SLACK: f64 = 1.0;

    /// Notes the store's clock, read at some moment between two times since boot.
    fn note(&mut self, now: Timestamp, asked: Duration, answered: Duration) {
        let now = now.as_duration().as_secs_f64();
        let (earliest, latest) = (now - answered.as_secs_f64(), now - asked.as_secs_f64());
        if self.boot_at_least.is_some_and(|known| latest < known - Self::SLACK) {
            self.went_back = true;
            self.boot_at_least = Some(earliest);
        }
        self.boot_at_least = Some(self.boot_at_least.map_or(earliest, |known| known.max(earliest)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The store's clock, at a time since boot, whose answer took as long.
    fn told(watch: &mut ClockWatch, now: i64, asked: u64, took: u64) -> bool {
        watch.note(Timestamp::from_second(now).unwrap(), seconds(asked), seconds(asked + took));
        std::mem::take(&mut watch.went_back)
    }

    #[test]
    fn a_clock_that_goes_on_or_is_set_forward_did_not_go_back() {
        let mut watch = ClockWatch::default();
        assert!(!told(&mut watch, 1_000_000, 100, 0));
        assert!(!told(&mut watch, 1_000_010, 110, 0));
        assert!(!told(&mut watch, 1_086_410, 110, 0), "a day forward");
        assert!(!told(&mut watch, 1_086_420, 120, 0));
    }

    #[test]
    fn a_clock_that_is_set_back_is_noticed_once() {
        let mut watch = ClockWatch::default();
        assert!(!told(&mut watch, 1_000_000, 100, 0));
        assert!(told(&mut watch, 996_410, 110, 0), "an hour back");
        assert!(!told(&mut watch, 996_420, 120, 0));
        assert!(told(&mut watch, 996_400, 130, 0), "and half a minute more");
    }

    #[test]
    fn an_answer_that_took_long_is_no_clock_that_was_set_back() {
        let mut watch = ClockWatch::default();
        assert!(!told(&mut watch, 1_000_000, 100, 0));
        assert!(!told(&mut watch, 1_000_010, 110, 30), "read at once, heard of late");
        assert!(!told(&mut watch, 1_000_170, 140, 30), "heard of as soon as it was read");
    }

    #[test]
    fn a_clock_that_runs_a_little_slow_is_noticed_only_when_it_adds_up() {
        let mut watch = ClockWatch::default();
        assert!(!told(&mut watch, 1_000_000, 100, 0));
        assert!(!told(&mut watch, 1_000_999, 1_100, 0));
        assert!(told(&mut watch, 1_001_998, 2_100, 0));
    }
}
