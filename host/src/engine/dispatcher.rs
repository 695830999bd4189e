//! START: fills the free slots with what is ready.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::completer::{Completions, Ended};
use super::queues::{Claimed, Queues};
use super::session::LiveSession;
use super::{Engine, POLL, STORE_RETRY, StoreWatch, executor};
use crate::execution::Outcome;
use crate::store::StoreError;

pub(super) async fn run(engine: Arc<Engine>, completions: Completions) {
    let mut watch = StoreWatch::new(&engine);
    let mut queues = Queues::new(Instant::now());
    while let Some(slots) = free_slots(&engine).await {
        let session = engine.session.current();
        // A session that was stopped is about to be replaced: what it starts would be stopped.
        if session.stop.is_cancelled() || (session.is_in_doubt() && !settle(&engine, &session).await) {
            drop(slots);
            pause(&engine, STORE_RETRY).await;
            continue;
        }
        // What is known of the queues is good enough where the store does not answer now.
        watch.note("queues", queues.refresh(&engine.store, Instant::now()).await);
        let claim = engine.plugins.claim();
        queues.limit_plugins(engine.plugins().plugins().filter_map(|plugin| {
            let limit = plugin.limits.concurrency?;
            Some((plugin.name.clone(), limit))
        }));
        let claimed = match queues.start(&engine.store, &session, slots).await {
            // The session's own task registers a new one.
            Err(StoreError::SessionLost) => {
                drop(claim);
                engine.session.doubt();
                pause(&engine, STORE_RETRY).await;
                continue;
            }
            other => watch.note("start", other),
        };
        let Some(Claimed { attempts, is_full }) = claimed else {
            drop(claim);
            session.set_in_doubt(true);
            pause(&engine, STORE_RETRY).await;
            continue;
        };
        session.open_all(attempts.iter().map(|(attempt, _)| attempt.lease));
        for (attempt, slot) in attempts {
            // The drain began while the store was asked: nothing new is started.
            if engine.drain.is_cancelled() {
                let completion = attempt.finish(Outcome::Released);
                completions.send(Ended { session: session.clone(), completion, slot }).await;
                continue;
            }
            let plugin = claim.find(&attempt.job.plugin, &attempt.component);
            let started = executor::Started { session: session.clone(), attempt, plugin, slot };
            let execution = executor::execute(engine.clone(), started, completions.clone());
            engine.executions.spawn_on(execution, engine.runtime.threads());
        }
        drop(claim);
        // In this order: what ends from here on wakes this loop, and what has ended before is seen.
        engine.ends_are_awaited.store(queues.are_limited(), Ordering::SeqCst);
        if !is_full && !queues.have_room_again() {
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
