//! COMPLETION: records how executions ended, several in one transaction when several ended.
//!
//! A completion is never given up: while the store does not answer it is tried again, and the
//! execution keeps its slot, so that no more are started than can be recorded.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;

use super::session::LiveSession;
use super::{Engine, STORE_RETRY, StoreWatch};
use crate::execution::{Completion, Failure, FailureKind, Next, Outcome};
use crate::store::Recording;

/// At most as many are recorded in one transaction.
const BATCH: usize = 500;

/// An execution that ended, and the slot that it holds until that is on record.
pub(super) struct Ended {
    pub(super) session: Arc<LiveSession>,
    pub(super) completion: Completion,
    pub(super) slot: OwnedSemaphorePermit,
}

/// Where ended executions are handed in. The completer ends when every clone is dropped.
#[derive(Clone)]
pub(super) struct Completions(mpsc::Sender<Ended>);

impl Completions {
    pub(super) async fn send(&self, ended: Ended) {
        // The receiver lives until every sender is gone.
        let _ = self.0.send(ended).await;
    }
}

pub(super) fn start(engine: Arc<Engine>) -> (JoinHandle<()>, Completions) {
    let (sender, receiver) = mpsc::channel(BATCH);
    (tokio::spawn(engine.watched("completer", run(engine.clone(), receiver))), Completions(sender))
}

async fn run(engine: Arc<Engine>, mut receiver: mpsc::Receiver<Ended>) {
    let mut batch = Vec::new();
    let mut watch = StoreWatch::new(&engine);
    while receiver.recv_many(&mut batch, BATCH).await > 0 {
        for (session, ended) in by_session(batch.drain(..)) {
            record(&engine, &session, ended, &mut watch).await;
        }
    }
}

/// A transaction is guarded by one host session; there are two only right after one was lost.
fn by_session(batch: impl Iterator<Item = Ended>) -> Vec<(Arc<LiveSession>, Vec<Ended>)> {
    let mut groups: Vec<(Arc<LiveSession>, Vec<Ended>)> = Vec::new();
    for ended in batch {
        match groups.iter_mut().find(|(session, _)| session.id == ended.session.id) {
            Some((_, group)) => group.push(ended),
            None => groups.push((ended.session.clone(), vec![ended])),
        }
    }
    groups
}

async fn record(engine: &Engine, session: &LiveSession, batch: Vec<Ended>, watch: &mut StoreWatch) {
    let (mut completions, slots): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|e| (e.completion, e.slot)).unzip();
    let recordings = loop {
        let result = engine.store.record(session.id, &completions).await;
        let refused = result.as_ref().is_err_and(|error| !error.may_pass());
        if let Some(recordings) = watch.note("record", result) {
            break recordings;
        }
        if refused {
            break record_one_by_one(engine, session, &mut completions, watch).await;
        }
        tokio::time::sleep(STORE_RETRY).await;
    };
    for (completion, recording) in completions.iter().zip(recordings) {
        session.close(completion.lease);
        report(completion, recording);
    }
    if completions.iter().any(|completion| matches!(completion.next, Next::RetryIn(_))) {
        engine.due.notify_one();
    }
    drop(slots);
    engine.ready.notify_one();
}

/// What the store refuses as a whole: each is recorded by itself, and one that is refused by
/// itself as a failure of the host that says so. It must not keep the others' slots for ever.
async fn record_one_by_one(
    engine: &Engine,
    session: &LiveSession,
    completions: &mut [Completion],
    watch: &mut StoreWatch,
) -> Vec<Recording> {
    let mut recordings = Vec::with_capacity(completions.len());
    for completion in completions {
        let recording = loop {
            match engine.store.record(session.id, std::slice::from_ref(completion)).await {
                Ok(recording) => {
                    watch.note("record", Ok(()));
                    break recording.into_iter().next().unwrap_or(Recording::Stale);
                }
                Err(error) => {
                    if !error.may_pass() {
                        let message = format!("how the execution ended could not be recorded: {error}");
                        completion.outcome = Outcome::Failed(Failure::new(FailureKind::Host, message));
                        completion.next = Next::Final;
                    }
                    watch.note::<()>("record", Err(error));
                    tokio::time::sleep(STORE_RETRY).await;
                }
            }
        };
        recordings.push(recording);
    }
    recordings
}

/// The only place that logs how an execution ended, once it is on record.
fn report(completion: &Completion, recording: Recording) {
    let Completion { execution, job, attempt, outcome, next, .. } = completion;
    if recording == Recording::Stale {
        tracing::warn!(%job, %execution, attempt, "the completion came too late: another host has taken over");
        return;
    }
    match (outcome, next) {
        (Outcome::Succeeded(_), _) => tracing::info!(%job, %execution, attempt, "succeeded"),
        (Outcome::Released, _) => tracing::info!(%job, %execution, attempt, "released to the queue"),
        (Outcome::Failed(failure), Next::Final) => {
            tracing::warn!(%job, %execution, attempt, kind = failure.kind.as_str(), error = brief(&failure.message), "failed");
        }
        (Outcome::Failed(failure), _) => {
            tracing::warn!(%job, %execution, attempt, kind = failure.kind.as_str(), error = brief(&failure.message), "failed, will be tried again");
        }
    }
}

/// The plugin's words, as far as they belong into the host's log: `execution show` has them all.
fn brief(message: &str) -> String {
    const ROOM: usize = 300;
    let line = message.lines().next().unwrap_or_default();
    line.chars().take(ROOM).collect()
}
