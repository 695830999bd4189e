//! Makes executions of the jobs that are due, and lets start what has waited long enough.
//!
//! There is no leader: every host plans, and whoever comes first inserts the execution, which
//! is unique for its job and fire time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::floor::Floor;
use super::{Engine, STORE_RETRY, StoreWatch};
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
    while !engine.drain.is_cancelled() {
        let (from, began) = (floor.of_scan(Instant::now()), Instant::now());
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
                planned.next_due.map_or(LONGEST_SLEEP, |wait| wait.min(LONGEST_SLEEP))
            }
            None => STORE_RETRY,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = engine.due.notified() => {}
            () = engine.drain.cancelled() => {}
        }
    }
}
