//! COMPLETION: records how executions ended, several in one transaction when several ended.
//!
//! A completion is never given up: while the store does not answer it is tried again, and the
//! execution keeps its slot, so that no more are started than can be recorded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::queues::Slot;
use super::session::LiveSession;
use super::{Engine, STORE_RETRY, StoreWatch};
use crate::execution::{Completion, Failure, FailureKind, Next, Outcome};
use crate::store::Recording;

/// Where the last transaction recorded as many, more are about to end, and one transaction
/// waits for them: it is worth more in the store than it costs here.
const CROWD: usize = 32;

/// How long it waits at most.
const GATHERING: Duration = Duration::from_millis(2);

/// More successes than this in one transaction are not logged one by one.
const TOO_MANY_LINES: usize = 20;

/// An execution that ended, and the slot that it holds until that is on record.
pub(super) struct Ended {
    pub(super) session: Arc<LiveSession>,
    pub(super) completion: Completion,
    pub(super) slot: Slot,
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
    let (sender, receiver) = mpsc::channel(engine.settings.concurrency.max(1));
    (tokio::spawn(engine.watched("completer", run(engine.clone(), receiver))), Completions(sender))
}

async fn run(engine: Arc<Engine>, mut receiver: mpsc::Receiver<Ended>) {
    let most = engine.batch();
    let mut batch = Vec::with_capacity(most);
    let mut watch = StoreWatch::new(&engine);
    let mut crowded = false;
    while receiver.recv_many(&mut batch, most).await > 0 {
        if crowded {
            gather(&mut receiver, &mut batch, most).await;
        }
        crowded = batch.len() >= CROWD;
        for (session, ended) in by_session(batch.drain(..)) {
            record(&engine, &session, ended, &mut watch).await;
        }
    }
}

/// Waits a moment for more to end, unless there are enough. It sleeps: to be woken by each costs
/// more than each.
async fn gather(receiver: &mut mpsc::Receiver<Ended>, batch: &mut Vec<Ended>, enough: usize) {
    if batch.len() + receiver.len() < enough {
        tokio::time::sleep(GATHERING).await;
    }
    while batch.len() < enough
        && let Ok(ended) = receiver.try_recv()
    {
        batch.push(ended);
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
    session.close_all(completions.iter().map(|completion| completion.lease));
    report(&completions, &recordings);
    drop(slots);
    let sets_something_off = |completion: &Completion| {
        matches!(completion.next, Next::RetryIn(_)) || !completion.effects.is_none()
    };
    if completions.iter().any(sets_something_off) {
        engine.due.notify_one();
    }
    if engine.ends_are_awaited.load(Ordering::SeqCst)
        || completions.iter().any(|completion| completion.next == Next::Requeue)
    {
        engine.ready.notify_one();
    }
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

/// The only place that logs how executions ended, once that is on record. Whoever runs
/// thousands in a second wants to read of what went wrong, and how much went well.
fn report(completions: &[Completion], recordings: &[Recording]) {
    let went_well = |completion: &Completion, recording| {
        recording == Recording::Recorded && matches!(completion.outcome, Outcome::Succeeded(_))
    };
    let recorded = || completions.iter().zip(recordings.iter().copied());
    let successes = recorded().filter(|(completion, recording)| went_well(completion, *recording)).count();
    let brief = successes > TOO_MANY_LINES && !tracing::enabled!(tracing::Level::DEBUG);
    if brief {
        tracing::info!(executions = successes, "succeeded");
    }
    for (completion, recording) in recorded() {
        if !(brief && went_well(completion, recording)) {
            report_one(completion, recording);
        }
    }
}

fn report_one(completion: &Completion, recording: Recording) {
    let Completion { execution, job, attempt, outcome, next, .. } = completion;
    if recording == Recording::Stale {
        tracing::warn!(%job, %execution, attempt, "the completion came too late: another host has taken over");
        return;
    }
    match (outcome, next) {
        (Outcome::Succeeded(_), _) => tracing::info!(%job, %execution, attempt, "succeeded"),
        (Outcome::Cancelled(why), _) => {
            tracing::info!(%job, %execution, attempt, why = brief(why), "cancelled");
        }
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
