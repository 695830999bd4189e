//! Makes executions of the jobs that are due, and lets start what has waited long enough.
//!
//! There is no leader: every host plans, and whoever comes first inserts the execution, which
//! is unique for its job and fire time.

use std::sync::Arc;

use super::{Engine, POLL, STORE_RETRY, StoreWatch};

/// Jobs and waiting executions that one transaction takes on.
const BATCH: u32 = 500;

pub(super) async fn run(engine: Arc<Engine>) {
    let mut watch = StoreWatch::default();
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
                planned.next_due.map_or(POLL, |wait| wait.min(POLL))
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
