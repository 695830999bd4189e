//! What a job's definition says, sentence by sentence.

use jiff::Timestamp;

use super::Fact;
use crate::cli::fires::{FireTime, next_fire};
use crate::cli::job::firing;
use crate::cli::job::missed;
use crate::cli::job::next::{none_left, paced};
use crate::cli::sentence::{at_in_zone, list, names, span};
use crate::job::{Job, Name, OnCrash};
use crate::policy::{PRIORITY_STEP, Queue, When, WhenFull};
use crate::retry::{Backoff, RetryPolicy};
use crate::store::{JobLook, JobRecord, QueueLook};

pub(super) fn queue_name(job: &Job) -> &str {
    job.policies.queue.as_ref().map_or(Queue::DEFAULT, Name::as_str)
}

/// When it runs.
pub(super) fn schedule(record: &JobRecord, look: &JobLook) -> Vec<Fact> {
    let job = &record.job;
    let Some(schedule) = &job.schedule else {
        let is_alone = job.policies.after.is_none() && look.runs_for_failures_of.is_empty();
        let by_itself = if is_alone { " It never runs by itself." } else { "" };
        let text = format!(
            "It has no schedule: it runs when somebody runs it (`innkeeper job run {}`), or when a handler or \
             another job does.{by_itself}",
            job.name
        );
        return vec![Fact::new("schedule", text)];
    };
    let sentences = schedule.sentences().into_iter();
    let mut facts: Vec<Fact> = sentences.map(|sentence| Fact::new("schedule", sentence)).collect();
    let policy = job.policies.catch_up;
    facts.push(
        Fact::new("catch_up", missed::sentence(record, schedule))
            .with("mode", policy.mode)
            .with("window", policy.window.map(span))
            .with("max", policy.max),
    );
    facts
}

/// The next fire of the schedule, and how it is told.
pub(super) fn next(record: &JobRecord, now: Timestamp) -> Result<(FireTime, String), String> {
    let schedule = firing(record)?;
    let zone = schedule.zone();
    if schedule.every_after().is_some() {
        let fire = paced(record, schedule)?;
        return Ok((fire, format!("on {}", at_in_zone(record.next_fire_at.unwrap_or(now), zone, now))));
    }
    let fire = next_fire(schedule, now).ok_or_else(|| none_left(schedule, now, None))?;
    let at = fire.at;
    let fire = FireTime::new(&fire, zone);
    let note = fire.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
    Ok((fire, format!("on {}{note}", at_in_zone(at, zone, now))))
}

/// How an execution gets to run, and what ends it.
pub(super) fn executions(job: &Job, queue: Option<&QueueLook>) -> Vec<Fact> {
    let mut facts = vec![concurrency(job)];
    if let Some(rate) = job.policies.rate {
        let text = format!(
            "At most {} start in any {}, over all hosts; the others wait in line.",
            rate.count,
            span(rate.period)
        );
        facts.push(Fact::new("rate", text).with("rate", rate.to_string()));
    }
    facts.push(in_queue(job, queue));
    facts.push(priority(job));
    facts.push(retry(&job.retry));
    let timeout = span(job.timeout);
    facts.push(
        Fact::new(
            "timeout",
            format!("An attempt that takes longer than {timeout} is stopped and has failed."),
        )
        .with("timeout", timeout),
    );
    let crash = match job.on_crash {
        OnCrash::Retry => {
            "If its host dies, the attempt has failed and is tried again by another one, while attempts are left: \
             the handler may run twice."
        }
        OnCrash::Fail => "If its host dies while it runs, it has failed and is not tried again.",
    };
    facts.push(Fact::new("on_crash", crash).with("on_crash", job.on_crash));
    let grace = span(job.policies.cancel_grace);
    let text = format!(
        "When it is cancelled while it runs, its handler has {grace} to end by itself, and is then stopped."
    );
    facts.push(Fact::new("cancel_grace", text).with("cancel_grace", grace));
    facts
}

fn concurrency(job: &Job) -> Fact {
    let Some(limits) = &job.policies.concurrency else {
        let text =
            "Any number of its executions run at once: only the slots of the hosts and its queue limit them.";
        return Fact::new("concurrency", text).with("limit", ()).with("per_key", ());
    };
    let whole = limits.limit.map(|limit| {
        let run = if limit == 1 { "runs" } else { "run" };
        format!("at most {limit} of its executions {run} at once")
    });
    let key = limits.per_key.as_ref().map(|key| {
        let executions = if whole.is_some() { "" } else { " of its executions at once" };
        format!("at most {}{executions} for each value of the argument `{}`", key.limit, key.pointer)
    });
    let parts: Vec<String> = [whole, key].into_iter().flatten().collect();
    let full = match limits.when_full {
        WhenFull::Queue => "One that is due while the limit is reached waits in line.",
        WhenFull::Skip => "One that is due while the limit is reached is not run: it is recorded as skipped.",
        WhenFull::Replace => {
            "One that is due while the limit is reached replaces the one that has run for the longest, which is \
             cancelled; only the newest wait, and older ones are recorded as skipped."
        }
    };
    let mut said = parts.join(", and ");
    if let Some(first) = said.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    Fact::new("concurrency", format!("{said}, over all hosts. {full}"))
        .with("limit", limits.limit)
        .with("per_key", &limits.per_key)
        .with("when_full", limits.when_full)
}

fn in_queue(job: &Job, queue: Option<&QueueLook>) -> Fact {
    let name = queue_name(job);
    let limits = queue.map_or_else(Vec::new, |look| {
        let queue = &look.queue;
        let over_all = queue.total_limit.map(|limit| format!("at most {limit} over all hosts"));
        let on_each = queue.host_limit.map(|limit| format!("at most {limit} on each host"));
        [over_all, on_each].into_iter().flatten().collect()
    });
    let limits = if limits.is_empty() {
        String::new()
    } else {
        format!(" Of that queue run {} at once.", list(&limits, "and"))
    };
    let weight = queue.map_or(1, |look| look.queue.weight);
    let share = if weight == 1 {
        String::new()
    } else {
        format!(
            " It has weight {weight}: where several queues have something to start, {weight} of it start for \
             each one of a queue with weight 1."
        )
    };
    Fact::new("queue", format!("Its executions stand in line in queue `{name}`.{share}{limits}"))
        .with("queue", name)
        .with("weight", weight)
        .with("limit", queue.and_then(|look| look.queue.total_limit))
        .with("limit_per_host", queue.and_then(|look| look.queue.host_limit))
}

fn priority(job: &Job) -> Fact {
    let priority = job.policies.priority;
    let head_start = span(PRIORITY_STEP.saturating_mul(priority.unsigned_abs()));
    let text = match priority {
        0 => "In line it stands by the time that it is due (priority 0).".to_owned(),
        1.. => format!(
            "In line it stands as if it had been due {head_start} earlier (priority {priority}). What waits for \
             longer than that goes first all the same, so that nothing starves."
        ),
        _ => format!(
            "In line it stands as if it were due {head_start} later (priority {priority}). After that time it goes \
             before what comes later, so that it does not starve."
        ),
    };
    Fact::new("priority", text).with("priority", priority)
}

fn retry(retry: &RetryPolicy) -> Fact {
    let fact = |text: String| {
        Fact::new("retry", text)
            .with("max_attempts", retry.max_attempts)
            .with("backoff", retry.backoff)
            .with("initial", span(retry.initial))
            .with("maximum", span(retry.maximum))
    };
    if retry.max_attempts <= 1 {
        return fact("A failed attempt is not tried again: the execution has failed.".to_owned());
    }
    let waits: Vec<String> = {
        let exact = RetryPolicy { jitter: 0.0, ..retry.clone() };
        (1..retry.max_attempts.min(4)).map(|attempt| span(exact.wait_after(attempt, 0))).collect()
    };
    let grows = match retry.backoff {
        Backoff::Constant => String::new(),
        _ if retry.max_attempts <= 4 => String::new(),
        Backoff::Linear => {
            format!(" and so on, each {} longer, up to {}", span(retry.initial), span(retry.maximum))
        }
        Backoff::Exponential => format!(" and so on, each twice as long, up to {}", span(retry.maximum)),
    };
    let after = if retry.backoff == Backoff::Constant || waits.len() == 1 {
        format!("after {}", waits.first().cloned().unwrap_or_default())
    } else if grows.is_empty() {
        format!("after {}", list(&waits, "and then"))
    } else {
        format!("after {}{grows}", waits.join(", "))
    };
    #[expect(clippy::cast_possible_truncation, reason = "a share of 0 to 1")]
    let percent = (retry.jitter.clamp(0.0, 1.0) * 100.0).round() as i64;
    let jitter = if percent == 0 { String::new() } else { format!(" (give or take {percent} %)") };
    fact(format!(
        "A failed attempt is tried again {after}{jitter}: {} attempts in all. A handler can ask for another wait \
         (`retry-after`), or say that there is no use in trying again (`permanent`).",
        retry.max_attempts
    ))
}

/// What it waits for and is run by, and what waits for it.
pub(super) fn follows(job: &Job, look: &JobLook) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(after) = &job.policies.after {
        let [which, last] = match after.when {
            When::All => ["each of ", "and"],
            When::Any => ["one of ", "or"],
        };
        let which = if after.jobs.len() == 1 { "" } else { which };
        let jobs = names(&after.jobs, last);
        let text = match (&job.schedule, after.when) {
            (Some(_), _) => {
                format!("When it is due, it waits until {which}{jobs} has succeeded since its last run.")
            }
            (None, When::All) if after.jobs.len() > 1 => {
                format!(
                    "It is run when {which}{jobs} has succeeded since its last run, with their results in its arguments."
                )
            }
            (None, _) => {
                format!("It is run whenever {which}{jobs} has succeeded, with the result in its arguments.")
            }
        };
        facts.push(Fact::new("after", text).with("jobs", &after.jobs).with("when", after.when));
    }
    if !look.runs_for_failures_of.is_empty() {
        let of = &look.runs_for_failures_of;
        let text = format!("It is run when {} has finally failed, and is told why.", names(of, "or"));
        facts.push(Fact::new("runs_for_failures_of", text).with("jobs", of));
    }
    if let Some(job) = &job.policies.on_failure {
        let text = format!("When it has finally failed, `{job}` is run.");
        facts.push(Fact::new("on_failure", text).with("job", job));
    }
    if !look.followers.is_empty() {
        let comes = if look.followers.len() == 1 { "comes" } else { "come" };
        let text = format!(
            "{} {comes} after it: its success lets go on what waits for it, or runs what has no schedule.",
            names(&look.followers, "and")
        );
        facts.push(Fact::new("followers", text).with("jobs", &look.followers));
    }
    facts
}
