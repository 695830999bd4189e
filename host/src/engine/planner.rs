//! Makes executions of the jobs that are due, and lets start what has waited long enough.
//!
//! There is no leader: every host plans, and whoever comes first inserts the execution, which
//! is unique for its job and fire time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Engine, STORE_RETRY, StoreWatch};

/// Jobs and waiting executions that one transaction takes on.
const BATCH: u32 = 500;

/// How long the planner sleeps at most: another host may have written jobs that are due
/// earlier than any that was known.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

pub(super) async fn run(engine: Arc<Engine>) {
    let mut watch = StoreWatch::new(&engine);
    let mut told = HashSet::new();
    while !engine.drain.is_cancelled() {
        let planned = watch.note("plan", engine.store.plan(BATCH).await);
        let pause = match &planned {
            Some(planned) => {
                for fired in &planned.fired {
                    tracing::debug!(job = %fired.job, execution = %fired.execution, fire_time = %fired.fire_time, "fired");
                }
                if !planned.fired.is_empty() || planned.promoted > 0 {
                    engine.ready.notify_one();
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
