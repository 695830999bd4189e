//! START: fills the free slots with what is ready.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::completer::{Completions, Ended};
use super::floor::Floor;
use super::session::LiveSession;
use super::{Engine, POLL, STORE_RETRY, StoreWatch, executor};
use crate::execution::Outcome;
use crate::store::{Started, StoreError};

pub(super) async fn run(engine: Arc<Engine>, completions: Completions) {
    let mut watch = StoreWatch::new(&engine);
    let mut floor = Floor::new(Instant::now());
    while let Some(mut slots) = free_slots(&engine).await {
        let free = slots.num_permits();
        let session = engine.session.current();
        // A session that was stopped is about to be replaced: what it starts would be stopped.
        if session.stop.is_cancelled() || (session.is_in_doubt() && !settle(&engine, &session).await) {
            drop(slots);
            pause(&engine, STORE_RETRY).await;
            continue;
        }
        let limit = u32::try_from(free).unwrap_or(u32::MAX);
        let (from, began) = (floor.of_scan(Instant::now()), Instant::now());
        let started = match engine.store.claim_from(session.id, limit, from).await {
            // The session's own task registers a new one.
            Err(StoreError::SessionLost) => {
                engine.session.doubt();
                pause(&engine, STORE_RETRY).await;
                continue;
            }
            other => watch.note("start", other),
        };
        let Some(Started { attempts, lowest_rank }) = started else {
            session.set_in_doubt(true);
            drop(slots);
            pause(&engine, STORE_RETRY).await;
            continue;
        };
        // One of a low priority says nothing of those that are due now.
        let now = attempts.first().map_or(i64::MAX, |attempt| attempt.started_at.as_microsecond());
        floor.note(from, began, began.elapsed(), lowest_rank.map(|rank| rank.min(now)));
        let filled = attempts.len() == free;
        session.open_all(attempts.iter().map(|attempt| attempt.lease));
        for attempt in attempts {
            // The store starts no more than it was asked for.
            let Some(slot) = slots.split(1) else { break };
            // The drain began while the store was asked: nothing new is started.
            if engine.drain.is_cancelled() {
                let completion = attempt.finish(Outcome::Released);
                completions.send(Ended { session: session.clone(), completion, slot }).await;
                continue;
            }
            let execution =
                executor::execute(engine.clone(), session.clone(), attempt, slot, completions.clone());
            engine.executions.spawn_on(execution, engine.runtime.threads());
        }
        drop(slots);
        if !filled {
            pause(&engine, POLL).await;
        }
    }
}

/// After a START whose answer was lost: what was recorded of it goes back to the queue.
async fn settle(engine: &Engine, session: &LiveSession) -> bool {
    match engine.store.release_unknown(session.id, &session.open_leases()).await {
        Ok(released) => {
            if !released.is_empty() {
                tracing::warn!(
                    executions = released.len(),
                    "the answer to a start was lost; released to the queue"
                );
            }
            session.set_in_doubt(false);
            true
        }
        // What a dead session left open is the rescuer's.
        Err(StoreError::SessionLost) => {
            engine.session.doubt();
            false
        }
        Err(_) => false,
    }
}

/// Waits for a free slot and takes all that are free; `None` once the host drains.
async fn free_slots(engine: &Engine) -> Option<OwnedSemaphorePermit> {
    let mut slots = tokio::select! {
        biased;
        () = engine.drain.cancelled() => return None,
        slot = engine.slots.clone().acquire_owned() => slot.ok()?,
    };
    let more = engine.slots.available_permits().min(engine.batch() - 1);
    if let Ok(rest) = engine.slots.clone().try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
        slots.merge(rest);
    }
    Some(slots)
}

async fn pause(engine: &Engine, time: std::time::Duration) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = engine.ready.notified() => {}
        () = engine.drain.cancelled() => {}
    }
}
