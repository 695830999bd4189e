//! Waiting for what has to come true.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// No condition is waited for longer. Reaching it is a failure, never a way to pass.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often it is asked.
const INTERVAL: Duration = Duration::from_millis(20);

/// Asks until there is an answer.
pub(super) async fn wait_until<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("it did not come true within {} s: {what}", PATIENCE.as_secs());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Waits for an event, no longer than for anything else.
pub(super) async fn in_time<T>(what: &str, event: impl Future<Output = T>) -> Result<T> {
    match tokio::time::timeout(PATIENCE, event).await {
        Ok(value) => Ok(value),
        Err(_) => bail!("it did not happen within {} s: {what}", PATIENCE.as_secs()),
    }
}
