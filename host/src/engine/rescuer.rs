//! Ends what hosts that died left open. Any host does it; a lost race costs nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Engine, StoreWatch};

/// Sessions that one look takes on.
const BATCH: u32 = 10;

/// How long an execution waits that nobody looks at, since a host died in the moment in which it
/// would have left a mark for that. Reads all that waits for permits, so not often.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);

pub(super) async fn run(engine: Arc<Engine>) {
    let mut watch = StoreWatch::new(&engine);
    let mut look_at = Instant::now();
    let mut has_turned_back = false;
    while !engine.drain.is_cancelled() {
        // The store's clock may have been set back while no host was there to notice: what dead hosts
        // left would not be found before the wrong time comes again.
        if !has_turned_back {
            let turned_back = watch.note("turn back", engine.store.turn_back_what_waits().await);
            has_turned_back = turned_back.is_some();
        }
        if Instant::now() >= look_at
            && watch.note("look at what waits", engine.store.look_at_all_that_waits().await).is_some()
        {
            look_at = Instant::now() + LOOK_INTERVAL;
            engine.due.notify_one();
        }
        let own = engine.session.with_open_starts();
        let rescued = watch.note("rescue", engine.store.rescue(BATCH, &own).await).unwrap_or_default();
        for rescued in &rescued {
            tracing::warn!(
                job = %rescued.job, execution = %rescued.execution, attempt = rescued.attempt, host = rescued.host,
                "its host died while it ran"
            );
        }
        if !rescued.is_empty() {
            engine.due.notify_one();
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(interval(&engine)) => {}
            () = engine.drain.cancelled() => {}
        }
    }
}

/// Often enough that a dead host is noticed within about a third of its session's time.
fn interval(engine: &Engine) -> Duration {
    (engine.settings.session_timeout / 3).clamp(Duration::from_millis(100), Duration::from_secs(5))
}
