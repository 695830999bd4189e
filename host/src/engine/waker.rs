//! Wakes the other hosts when this one has made something to do, and is woken by them: a hint,
//! so that nothing has to wait until the loops ask by themselves.
//!
//! However much there is to do, a host sends ten hints in a second and acts on as many. They have
//! a connection of their own, where nothing else can be held up by them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::Engine;
use crate::store::StoreError;

/// From one hint to the next.
const INTERVAL: Duration = Duration::from_millis(100);

/// How a hint ends that is none, and only tries the connection.
const CHECK: &str = " check";

pub(super) async fn run(engine: Arc<Engine>) {
    let mut failing = false;
    loop {
        // Dropped wherever it stands: it holds nothing.
        let ended = engine.drain.run_until_cancelled(listen(&engine, &mut failing)).await;
        let error = match ended {
            None => return,
            Some(error) => error,
        };
        if failing {
            tracing::debug!(%error, "there is still no connection for hints between hosts");
        } else {
            tracing::warn!(%error, "the connection for hints between hosts failed; looking for work without them");
        }
        failing = true;
        tokio::select! {
            () = tokio::time::sleep(patience(&engine)) => {}
            () = engine.drain.cancelled() => return,
        }
    }
}

/// Hears and sends hints until the connection fails, or falls silent. Where none can be heard, they
/// are only sent.
async fn listen(engine: &Engine, failing: &mut bool) -> StoreError {
    match hear(engine, failing).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn hear(engine: &Engine, failing: &mut bool) -> Result<Infallible, StoreError> {
    let silent = || StoreError::Unavailable("it does not answer".into());
    let patience = patience(engine);
    let Some(mut hints) = timeout(patience, engine.store.listen()).await.map_err(|_| silent())?? else {
        loop {
            engine.others.notified().await;
            let _ = timeout(patience, engine.store.wake_hosts()).await;
            tokio::time::sleep(INTERVAL).await;
        }
    };
    let me = engine.session.boot().to_string();
    let check = format!("{me}{CHECK}");
    let (mut sending, mut waking) = (Limited::default(), Limited::default());
    // Hints may have been missed until now.
    engine.wake();
    // This host's own hint is to come back, at first and whenever it has been quiet.
    let mut check_at = Instant::now();
    let mut answer_by: Option<Instant> = None;
    let mut works = false;
    loop {
        let hint = tokio::select! {
            hint = hints.next() => {
                let hint = hint?;
                if hint.starts_with(&me) {
                    answer_by = None;
                    if !std::mem::replace(&mut works, true) {
                        tracing::info!("hints between hosts are heard");
                        *failing = false;
                    }
                } else if !hint.ends_with(CHECK) {
                    waking.ask(Instant::now());
                }
                continue;
            }
            () = engine.others.notified() => {
                sending.ask(Instant::now());
                continue;
            }
            () = at(waking.due()) => {
                tracing::debug!("woken by another process");
                engine.wake();
                waking.done(Instant::now());
                continue;
            }
            () = at(answer_by) => return Err(silent()),
            () = at(sending.due()) => {
                sending.done(Instant::now());
                &me
            }
            () = sleep_until(check_at) => &check,
        };
        timeout(patience, hints.send(hint)).await.map_err(|_| silent())??;
        check_at = Instant::now() + patience;
        answer_by = answer_by.or(Some(check_at));
    }
}

impl Engine {
    /// Has the loops ask the store at once.
    fn wake(&self) {
        self.due.notify_one();
        self.ready.notify_one();
        self.cancels.notify_one();
    }
}

/// How long the connection may be quiet, and then silent, before it is given up.
fn patience(engine: &Engine) -> Duration {
    (engine.settings.session_timeout / 3).clamp(Duration::from_millis(500), Duration::from_secs(10))
}

/// At this time; never, if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Something that is done at once when it is asked for, and then not again within [`INTERVAL`],
/// however often it is asked for meanwhile.
#[derive(Debug, Default)]
struct Limited {
    asked: Option<Instant>,
    done: Option<Instant>,
}

impl Limited {
    fn ask(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
    }

    /// When it is to be done. None: nobody has asked.
    fn due(&self) -> Option<Instant> {
        let earliest = self.done.map(|done| done + INTERVAL);
        self.asked.map(|asked| earliest.map_or(asked, |earliest| asked.max(earliest)))
    }

    fn done(&mut self, now: Instant) {
        *self = Self { asked: None, done: Some(now) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_often_is_done_at_once_and_then_ten_times_a_second() {
        let begun = Instant::now();
        let (mut limited, mut done) = (Limited::default(), Vec::new());
        for millis in 0..1000 {
            let now = begun + Duration::from_millis(millis);
            limited.ask(now);
            if limited.due().is_some_and(|due| due <= now) {
                limited.done(now);
                done.push(millis);
            }
        }
        assert_eq!(done, [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]);
    }

    #[test]
    fn what_is_asked_for_too_early_is_done_later_and_not_forgotten() {
        let begun = Instant::now();
        let mut limited = Limited::default();
        assert_eq!(limited.due(), None);
        limited.ask(begun);
        limited.done(begun);
        assert_eq!(limited.due(), None, "nobody has asked since");
        limited.ask(begun + Duration::from_millis(1));
        assert_eq!(limited.due(), Some(begun + INTERVAL));
    }
}
