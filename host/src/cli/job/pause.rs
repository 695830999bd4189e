//! `innkeeper job pause` and `resume`.

use jiff::Timestamp;
use serde_json::json;

use crate::cli::sentence::{count, dated, moment};
use crate::cli::{CliError, Report};
use crate::job::Name;
use crate::store::{JobLook, JobRecord, Store};

pub(super) async fn pause(store: &Store, name: &Name, reason: Option<&str>) -> Result<Report, CliError> {
    let is_new = store.pause_job(name, reason).await?;
    // A hint, so that hosts look again: what they start next is not of this job.
    let _ = store.wake_hosts().await;
    let record = store.job(name).await?;
    let look = store.look_at_job(&record).await?;
    let waiting = waiting(&look);
    let json = json!({
        "job": name,
        "changed": is_new,
        "paused_at": record.paused_at,
        "reason": record.paused_reason,
        "waiting": waiting,
    });
    Ok(Report::new(&json, paused_text(&record, is_new, waiting)))
}

fn paused_text(record: &JobRecord, is_new: bool, waiting: u64) -> String {
    let name = &record.job.name;
    if !is_new {
        let at = record.paused_at.map_or_else(String::new, |at| format!(", since {}", moment(at)));
        let why = record.paused_reason.as_ref().map_or_else(String::new, |why| format!(", reason: {why}"));
        return format!("Job `{name}` was paused already{at}{why}.");
    }
    let fires = match &record.job.schedule {
        Some(_) => {
            "Its schedule fires nothing; the fires that it misses will be recorded as skipped, not run later. "
        }
        None => "",
    };
    let waits = match waiting {
        0 => String::new(),
        1 => " 1 execution of it waits until then.".to_owned(),
        more => format!(" {more} executions of it wait until then."),
    };
    format!(
        "Paused job `{name}`: from now on nothing of it starts, retries included. {fires}What runs goes on to \
         its end.\n`innkeeper job resume {name}` ends the pause; what is asked for meanwhile waits.{waits}"
    )
}

/// All that has not started.
fn waiting(look: &JobLook) -> u64 {
    look.ready + look.waiting.iter().map(|waiting| waiting.executions).sum::<u64>()
}

pub(super) async fn resume(store: &Store, name: &Name) -> Result<Report, CliError> {
    let resumed = store.resume_job(name).await?;
    let _ = store.wake_hosts().await;
    let record = store.job(name).await?;
    let look = store.look_at_job(&record).await?;
    let waiting = waiting(&look);
    let json = json!({
        "job": name,
        "changed": resumed.paused_at.is_some(),
        "paused_at": resumed.paused_at,
        "skipped": resumed.skipped,
        "waiting": waiting,
        "next_fire_at": resumed.next_fire_at,
    });
    let Some(paused_at) = resumed.paused_at else {
        return Ok(Report::new(&json, format!("Job `{name}` was not paused.")));
    };
    let now = crate::clock::now();
    let skipped = match (resumed.skipped, record.job.schedule.is_some()) {
        (_, false) => String::new(),
        (0, true) => " It missed no fire meanwhile.".to_owned(),
        (1, true) => {
            " What it missed meanwhile is recorded as skipped, in 1 record, and is not run.".to_owned()
        }
        (more, true) => {
            format!(" What it missed meanwhile is recorded as skipped, in {more} records, and is not run.")
        }
    };
    let waits = match waiting {
        0 => String::new(),
        waiting => format!(" {} of it may go on.", count(waiting, "execution")),
    };
    let next = next_text(resumed.next_fire_at, now);
    Ok(Report::new(
        &json,
        format!("Resumed job `{name}`, which was paused since {}.{skipped}{waits}{next}", moment(paused_at)),
    ))
}

fn next_text(next: Option<Timestamp>, now: Timestamp) -> String {
    next.map_or_else(String::new, |at| format!("\nIt fires next at {}.", dated(at, now)))
}
