//! A thousand executions at once that wait: what each of them keeps in memory.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use innkeeper::execution::{LogLine, Outcome, Progress};
use innkeeper::interfaces::{EnqueueError, EnqueueRequest, Port};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::ours::{Execution, Ours};
use crate::Selection;
use crate::figure::{Figure, Report};

const NAME: &str = "in_flight_1000";

const EXECUTIONS: u32 = 1_000;

pub async fn measure(selection: &Selection, report: &mut Report) {
    if selection.wants(NAME) {
        report.add(NAME, hold().await);
    }
}

/// Counts handlers that say that they have started.
struct Started(Semaphore);

async fn hold() -> Result<Figure> {
    let ours = Ours::load(EXECUTIONS as usize).await?;
    let started = Arc::new(Started(Semaphore::new(0)));
    let mut execution = Execution::new("doze", json!(null), Duration::from_secs(3600));
    execution.port = started.clone();
    let before = resident()?;
    let running: Vec<_> = (0..EXECUTIONS).map(|_| ours.spawn(execution.clone())).collect();
    let _ = started.0.acquire_many(EXECUTIONS).await.context("nobody closes it")?;
    // The last of them is on its way into the call that it waits in, which needs nothing more.
    let each = resident()?.saturating_sub(before) / u64::from(EXECUTIONS);
    execution.stop.cancel();
    for task in running {
        let outcome = task.await?;
        ensure!(outcome == Outcome::Released, "an execution did not wait until it was stopped: {outcome:?}");
    }
    #[expect(clippy::cast_precision_loss, reason = "far less than the memory of any machine")]
    Ok(Figure::alone(NAME, each as f64 / 1024.0, "KiB"))
}

/// Bytes of this process that are in memory.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("the kernel is not Linux")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")).map(str::parse::<u64>);
    Ok(kibibytes.context("/proc/self/status has no VmRSS")?? * 1024)
}

#[async_trait]
impl Port for Started {
    async fn log(&self, _lines: Vec<LogLine>) {}

    async fn progress(&self, _progress: Progress) {
        self.0.add_permits(1);
    }

    async fn save_checkpoint(&self, _state: Value) -> Result<(), String> {
        Ok(())
    }

    fn cancelled(&self) -> bool {
        false
    }

    async fn enqueue(&self, _request: EnqueueRequest) -> Result<Uuid, EnqueueError> {
        Err(EnqueueError::Denied("it is not granted".to_owned()))
    }
}
