//! `innkeeper execution cancel` and `retry`: each does what it can for every id, and complains of
//! the rest.

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::{CliError, Exit, Report, visible};
use super::unknown;
use crate::engine::submit::{SubmitError, repeat};
use crate::execution::State;
use crate::store::{CancelResult, Repeated, Store};

/// What is recorded where the operator gives no reason.
const NO_REASON: &str = "an operator cancelled it";

/// What was done about one execution.
struct Change {
    id: Uuid,
    /// As `--json` prints it: `cancelled`, `requested`, `repeated` or `refused`.
    result: &'static str,
    /// The execution that repeats it.
    retry: Option<Uuid>,
    /// For people: what was done, or why nothing was.
    text: String,
}

impl Change {
    const REFUSED: &'static str = "refused";

    fn refused(id: Uuid, why: String) -> Self {
        Self { id, result: Self::REFUSED, retry: None, text: why }
    }

    fn is_refused(&self) -> bool {
        self.result == Self::REFUSED
    }

    fn json(&self) -> Value {
        let reason = self.is_refused().then_some(&self.text);
        let retry = self.retry.map(|id| id.to_string());
        json!({ "id": self.id.to_string(), "result": self.result, "retry": retry, "reason": reason })
    }
}

pub(super) async fn cancel(store: &Store, ids: &[Uuid], reason: Option<&str>) -> Result<Report, CliError> {
    let reason = reason.map(str::trim).filter(|reason| !reason.is_empty()).unwrap_or(NO_REASON);
    let results = store.cancel(ids, reason).await?;
    hint(store, results.iter().any(|(_, result)| *result == CancelResult::Requested)).await;
    Ok(report(results.into_iter().map(|(id, result)| cancelled(id, result)).collect()))
}

fn cancelled(id: Uuid, result: CancelResult) -> Change {
    let done = |result, text: String| Change { id, result, retry: None, text };
    let refused = |why| Change::refused(id, why);
    match result {
        CancelResult::Cancelled => done("cancelled", format!("Cancelled {id}: it had not started.")),
        CancelResult::Requested => done(
            "requested",
            format!("Told {id} to end: it runs, and is stopped when its job's `cancel_grace` is over."),
        ),
        CancelResult::Ended(State::Cancelled) => {
            done("cancelled", format!("Execution {id} was cancelled before."))
        }
        CancelResult::Ended(state) => {
            refused(format!("execution {id} has ended already, as `{}`", state.as_str()))
        }
        CancelResult::Unknown => refused(unknown(id)),
    }
}

pub(super) async fn retry(store: &Store, ids: &[Uuid], force: bool) -> Result<Report, CliError> {
    let mut changes: Vec<Change> = Vec::with_capacity(ids.len());
    for (index, id) in ids.iter().copied().enumerate() {
        // Twice on the line is not twice.
        if ids[..index].contains(&id) {
            continue;
        }
        let repeated = match repeat(store, id, force).await {
            Ok(repeated) => repeated_as(id, repeated),
            Err(SubmitError::InvalidArgs(why)) => Err(format!("execution {id} cannot be repeated: {why}")),
            Err(SubmitError::UnknownJob(why)) => Err(why),
            // What was done before it is said, so that nobody does it again.
            Err(SubmitError::Store(error)) if changes.iter().any(|change| change.result == "repeated") => {
                Err(format!("execution {id} was not repeated: {error}"))
            }
            Err(error) => return Err(error.into()),
        };
        changes.push(match repeated {
            Ok(new) => {
                let text = format!("Enqueued {new}, which repeats {id}.");
                Change { id, result: "repeated", retry: Some(new), text }
            }
            Err(why) => Change::refused(id, why),
        });
    }
    hint(store, changes.iter().any(|change| change.result == "repeated")).await;
    Ok(report(changes))
}

/// The new execution, or why there is none.
fn repeated_as(id: Uuid, repeated: Repeated) -> Result<Uuid, String> {
    Err(match repeated {
        Repeated::As(new) => return Ok(new),
        Repeated::Unfinished(State::Retrying) => format!(
            "execution {id} is tried again by itself: `innkeeper execution show {id}` shows when; to repeat it \
             from the beginning, cancel it first"
        ),
        Repeated::Unfinished(State::Running) => format!("execution {id} still runs"),
        Repeated::Unfinished(state) => {
            format!("execution {id} is still `{}`: it will run by itself", state.as_str())
        }
        Repeated::Succeeded => format!("execution {id} has succeeded; `--force` repeats it all the same"),
        Repeated::Retired { job, at } => format!(
            "execution {id} is of job `{job}`, which was retired at {at}, since no configuration named it any more"
        ),
        Repeated::KeyTaken(holder) => {
            format!("execution {holder} has the unique key of {id} and has not ended: one of them is enough")
        }
        Repeated::Unknown => unknown(id),
    })
}

/// Has the hosts look at once; without it, they find out a moment later.
async fn hint(store: &Store, is_needed: bool) {
    if is_needed {
        let _ = store.wake_hosts().await;
    }
}

fn report(changes: Vec<Change>) -> Report {
    let (refused, done): (Vec<&Change>, Vec<&Change>) = changes.iter().partition(|c| c.is_refused());
    for change in &refused {
        eprintln!("error: {}", visible(&change.text));
    }
    let exit = if refused.is_empty() { Exit::Done } else { Exit::Usage };
    let text = done.iter().map(|change| change.text.as_str()).collect::<Vec<_>>().join("\n");
    let json = changes.iter().map(Change::json).collect::<Vec<_>>();
    Report { exit, ..Report::new(&json!({ "executions": json }), text) }
}
