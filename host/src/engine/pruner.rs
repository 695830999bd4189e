//! Removes the history that is old enough, a little at a time. Any host does it; while one does,
//! the others leave it alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Engine, STORE_RETRY, StoreWatch};
use crate::store::{JobHistory, Pruned, StoreError};

/// Executions that one transaction looks at: a few milliseconds of work, so that on SQLite, which
/// has one writer, a START hardly waits for it.
const STEP: u32 = 200;

/// The least time between two steps. They are also at least as far apart as a step takes: no more
/// than half of one connection's time is spent here.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// From one round over all jobs to the next.
const INTERVAL: Duration = Duration::from_secs(60);

pub(super) async fn run(engine: Arc<Engine>) {
    let mut watch = StoreWatch::new(&engine);
    let mut histories = Vec::new();
    while !engine.drain.is_cancelled() {
        let round = round(&engine, &mut histories).await;
        let wait = if watch.note("prune", round).is_some() { INTERVAL } else { STORE_RETRY };
        pause(&engine, wait).await;
    }
}

/// Once over all jobs.
async fn round(engine: &Engine, histories: &mut Vec<JobHistory>) -> Result<(), StoreError> {
    *histories = engine.store.job_histories(histories).await?;
    let mut removed = 0;
    for history in histories.iter_mut() {
        loop {
            let begun = Instant::now();
            let pruned = engine.store.prune(history, STEP).await?;
            match pruned {
                Pruned::Some(count) => removed += count,
                Pruned::Done(count) => {
                    removed += count;
                    break;
                }
                // It goes over the same jobs.
                Pruned::Elsewhere => return Ok(()),
            }
            pause(engine, begun.elapsed().max(SHORTEST_PAUSE)).await;
            if engine.drain.is_cancelled() {
                return Ok(());
            }
        }
    }
    engine.store.prune_leftovers(STEP).await?;
    if removed > 0 {
        tracing::info!(executions = removed, "removed from the history, as old as it is to be");
    }
    Ok(())
}

async fn pause(engine: &Engine, time: Duration) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = engine.drain.cancelled() => {}
    }
}
