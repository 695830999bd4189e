//! Why a job is not running right now, or that it is: the reasons in the order in which somebody
//! would have to remove them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plugin_limit::PluginLook;
use super::rules::{next, queue_name};
use super::{Fact, NAMED, SHOWN};
use crate::cli::fires::next_fire;
use crate::cli::job::missed::missed;
use crate::cli::sentence::{count, dated, from_now, list, moment, names, span};
use crate::execution::State;
use crate::job::Name;
use crate::policy::{When, WhenFull};
use crate::schedule::Note;
use crate::store::{
    ExecutionRecord, HostRecord, HostState, JobLook, JobRecord, LastExecution, PermitHolder, PermitHolders,
    QueueLook, WaitingLook,
};

/// What is known of a job at a time.
pub(super) struct Scene<'a> {
    pub(super) record: &'a JobRecord,
    pub(super) look: JobLook,
    /// Its queue.
    pub(super) queue: Option<QueueLook>,
    /// All that live.
    pub(super) hosts: Vec<HostRecord>,
    /// The live hosts that have its plugin.
    pub(super) with_plugin: Vec<String>,
    /// What runs of it, the newest first.
    pub(super) running: Vec<ExecutionRecord>,
    /// Those that it comes after and that have not succeeded since, with their last executions.
    pub(super) upstreams: Vec<(Name, Option<LastExecution>)>,
    /// Where its plugin has a limit on a host.
    pub(super) plugin: Option<PluginLook>,
    pub(super) now: Timestamp,
}

/// Keys that have a sentence of their own.
const KEYS: usize = 5;

pub(super) fn facts(scene: &Scene<'_>) -> Vec<Fact> {
    let mut facts: Vec<Fact> =
        [retired(scene), running(scene), paused(scene), disabled(scene)].into_iter().flatten().collect();
    facts.extend(queue_paused(scene));
    facts.extend(no_host(scene));
    facts.extend(limit(scene));
    facts.extend(keys(scene));
    facts.extend(rate(scene));
    facts.extend(after(scene));
    facts.extend(times(scene));
    facts.extend(set_aside(scene));
    facts.extend(ready(scene));
    facts.extend(overdue(scene));
    facts.extend(excluded(scene));
    facts.extend(waits_for_its_time(scene, facts.is_empty()));
    facts
}

fn retired(scene: &Scene<'_>) -> Option<Fact> {
    let at = scene.record.retired_at?;
    let text = format!(
        "It is retired since {}: no host's configuration names it any more. It fires nothing, and cannot be \
         run. Put it back into the configuration of a host and restart that host.",
        dated(at, scene.now)
    );
    Some(Fact::new("retired", text).with("since", at))
}

fn paused(scene: &Scene<'_>) -> Option<Fact> {
    let at = scene.record.paused_at?;
    let why = match &scene.record.paused_reason {
        Some(why) => format!(", reason: {why}"),
        None => ", no reason was given".to_owned(),
    };
    let text = format!(
        "It is paused since {}{why}. It fires nothing, and nothing of it starts. `innkeeper job resume {}` \
         ends that.",
        dated(at, scene.now),
        scene.record.job.name
    );
    Some(Fact::new("paused", text).with("since", at).with("reason", &scene.record.paused_reason))
}

fn disabled(scene: &Scene<'_>) -> Option<Fact> {
    let job = &scene.record.job;
    if job.enabled || scene.record.retired_at.is_some() {
        return None;
    }
    let text = "It is disabled in the configuration (`enabled = false`): its schedule does not fire, and no other job \
                triggers it. It can be run by hand.";
    Some(Fact::new("disabled", text))
}

fn running(scene: &Scene<'_>) -> Option<Fact> {
    let each = scene.running.iter().take(NAMED).map(|execution| {
        let since =
            execution.started_at.map_or_else(String::new, |at| format!(" since {}", dated(at, scene.now)));
        let attempt = match execution.attempt {
            0 | 1 => String::new(),
            attempt => format!(", attempt {attempt} of {}", execution.max_attempts),
        };
        let ending = execution.cancel_requested.as_ref();
        let ending = ending.map_or_else(String::new, |why| format!(", asked to end ({why})"));
        format!("execution {} on host `{}`{since}{attempt}{ending}", execution.id, host_of(execution))
    });
    let mut told: Vec<String> = each.collect();
    let runs = match scene.running.len() {
        0 => return None,
        1 => "It is running:".to_owned(),
        // As many as were asked for: there may be more.
        many if many >= SHOWN as usize => format!("{many} or more of its executions are running:"),
        many => format!("{many} of its executions are running:"),
    };
    if scene.running.len() > NAMED {
        told.push("others".to_owned());
    }
    let executions: Vec<Value> = scene
        .running
        .iter()
        .map(|one| {
            let (id, since) = (one.id.to_string(), one.started_at);
            json!({ "id": id, "host": one.host, "since": since, "attempt": one.attempt })
        })
        .collect();
    Some(Fact::new("running", format!("{runs} {}.", list(&told, "and"))).with("executions", executions))
}

fn host_of(execution: &ExecutionRecord) -> &str {
    execution.host.as_deref().unwrap_or("?")
}

fn queue_paused(scene: &Scene<'_>) -> Option<Fact> {
    let look = scene.queue.as_ref()?;
    let at = look.paused_at?;
    let name = &look.queue.name;
    let why = match &look.paused_reason {
        Some(why) => format!(", reason: {why}"),
        None => ", no reason was given".to_owned(),
    };
    let text = format!(
        "Its queue `{name}` is paused since {}{why}: nothing of it starts. `innkeeper queue resume {name}` \
         ends that.",
        dated(at, scene.now)
    );
    let fact = Fact::new("queue_paused", text).with("queue", name).with("since", at);
    Some(fact.with("reason", &look.paused_reason))
}

fn no_host(scene: &Scene<'_>) -> Option<Fact> {
    let plugin = &scene.record.job.plugin;
    let live: Vec<&HostRecord> = scene.hosts.iter().filter(|host| host.state != HostState::Expired).collect();
    let able: Vec<&&HostRecord> = live.iter().filter(|host| scene.with_plugin.contains(&host.host)).collect();
    let text = if live.is_empty() {
        "No host is up, so that nothing fires and nothing runs: start `innkeeper serve`.".to_owned()
    } else if able.is_empty() {
        format!(
            "No live host has plugin `{plugin}`, so that nothing of it can start: look at what `innkeeper plugin \
             list` and the logs of the hosts say of it."
        )
    } else if able.iter().all(|host| host.state == HostState::Draining) {
        let hosts: Vec<&str> = able.iter().map(|host| host.host.as_str()).collect();
        format!("Every live host that could run it is draining and starts nothing: {}.", names(&hosts, "and"))
    } else {
        return None;
    };
    Some(Fact::new("no_host", text).with("plugin", plugin))
}

fn waiting<'a>(scene: &'a Scene<'_>, blocker: &str) -> Option<&'a WaitingLook> {
    scene.look.waiting.iter().find(|waiting| waiting.blocker == blocker && waiting.executions > 0)
}

/// `3 executions wait`.
fn wait(executions: u64) -> String {
    format!("{} {}", count(executions, "execution"), if executions == 1 { "waits" } else { "wait" })
}

fn limit(scene: &Scene<'_>) -> Option<Fact> {
    let limits = scene.record.job.policies.concurrency.as_ref()?;
    let (limit, holders) = (limits.limit?, &scene.look.holders);
    if holders.count < u64::from(limit) {
        return None;
    }
    let waiting = waiting(scene, "limit").map_or(0, |waiting| waiting.executions);
    let then = match (waiting, limits.when_full) {
        (0, WhenFull::Queue) => "Nothing waits for a place yet; the next one that is due will.".to_owned(),
        (0, WhenFull::Skip) => {
            "The next one that is due is skipped, unless a place is free by then.".to_owned()
        }
        (0, WhenFull::Replace) => "The next one that is due replaces the first of these.".to_owned(),
        (waiting, _) => format!("{} for a place.", wait(waiting)),
    };
    let text = format!("Its limit of {limit} at once is reached, by {}. {then}", held_by(holders, scene.now));
    Some(
        Fact::new("limit", text)
            .with("limit", limit)
            .with("holders", holder_parts(&holders.first))
            .with("waiting", waiting),
    )
}

fn keys(scene: &Scene<'_>) -> Vec<Fact> {
    let limits = scene.record.job.policies.concurrency.as_ref();
    let Some(per_key) = limits.and_then(|limits| limits.per_key.as_ref()) else { return Vec::new() };
    let fact = |key: &crate::store::KeyLook| {
        let of_key = scene.look.key_holders.first.iter().filter(|holder| holder.key == key.key);
        let first: Vec<PermitHolder> = of_key.cloned().collect();
        let parts = holder_parts(&first);
        let holders = PermitHolders { count: first.len() as u64, first };
        let text = format!(
            "{} for a place of key {} (`{}`): its limit of {} at once is reached, by {}.",
            wait(key.executions),
            key.key,
            per_key.pointer,
            per_key.limit,
            held_by(&holders, scene.now)
        );
        Fact::new("key", text)
            .with("key", &key.key)
            .with("limit", per_key.limit)
            .with("holders", parts)
            .with("waiting", key.executions)
    };
    let mut facts: Vec<Fact> = scene.look.keys.iter().take(KEYS).map(fact).collect();
    if scene.look.keys.len() > KEYS {
        let all = waiting(scene, "key").map_or(0, |waiting| waiting.executions);
        let told: u64 = scene.look.keys.iter().take(KEYS).map(|key| key.executions).sum();
        let more = all.saturating_sub(told);
        facts.push(Fact::new("key", format!("{} for other keys.", wait(more))).with("waiting", more));
    }
    facts
}

/// Such as `execution … (on host `a` since …) and 2 more`.
fn held_by(holders: &PermitHolders, now: Timestamp) -> String {
    let mut told: Vec<String> = holders
        .first
        .iter()
        .take(NAMED)
        .map(|holder| match (&holder.host, holder.started_at) {
            (Some(host), Some(at)) => {
                format!("execution {} (on host `{host}` since {})", holder.execution, moment_and_age(at, now))
            }
            _ => format!(
                "execution {} (let through {}, and not started yet)",
                holder.execution,
                from_now(holder.since, now)
            ),
        })
        .collect();
    let more = holders.count.saturating_sub(told.len() as u64);
    if told.is_empty() {
        return "executions that have just ended".to_owned();
    }
    if more > 0 {
        told.push(format!("{more} more"));
    }
    list(&told, "and")
}

fn moment_and_age(time: Timestamp, now: Timestamp) -> String {
    format!("{}, {}", moment(time), from_now(time, now))
}

fn holder_parts(holders: &[PermitHolder]) -> Vec<Value> {
    holders
        .iter()
        .map(|holder| {
            json!({
                "id": holder.execution.to_string(),
                "host": holder.host,
                "since": holder.started_at.unwrap_or(holder.since),
                "started": holder.started_at.is_some(),
            })
        })
        .collect()
}

fn rate(scene: &Scene<'_>) -> Option<Fact> {
    let (rate, look) = (scene.record.job.policies.rate?, scene.look.rate?);
    let waiting = waiting(scene, "limit").map_or(0, |waiting| waiting.executions);
    if look.used < rate.count {
        return None;
    }
    let next = match look.frees_at {
        Some(at) => format!("The next one may start at {}", dated(at, scene.now)),
        None => format!("The next one may start {} after one of these has started", span(rate.period)),
    };
    let waits = if waiting == 0 { String::new() } else { format!("; {}", wait(waiting)) };
    let pending = match look.pending {
        0 => String::new(),
        pending => format!(" (of these, {pending} were let through and have not started yet)"),
    };
    let text = format!(
        "Its rate of {} per {} is used up: {} counted{pending}. {next}{waits}.",
        rate.count,
        span(rate.period),
        if look.used == 1 { "1 start is".to_owned() } else { format!("{} starts are", look.used) },
    );
    Some(
        Fact::new("rate", text)
            .with("rate", rate.to_string())
            .with("used", look.used)
            .with("next_at", look.frees_at)
            .with("waiting", waiting),
    )
}

fn after(scene: &Scene<'_>) -> Option<Fact> {
    let after = scene.record.job.policies.after.as_ref()?;
    let is_triggered = scene.record.job.schedule.is_none();
    let waiting = waiting(scene, "after").map_or(0, |waiting| waiting.executions);
    if (waiting == 0 && !is_triggered) || (is_triggered && !scene.record.job.enabled) {
        return None;
    }
    let told: Vec<&Name> = scene
        .look
        .after
        .iter()
        .filter(|upstream| upstream.succeeded_at.is_some())
        .map(|up| &up.name)
        .collect();
    let unknown: Vec<&Name> = after
        .jobs
        .iter()
        .filter(|job| !scene.look.after.iter().any(|upstream| upstream.name == **job && !upstream.is_retired))
        .collect();
    let missing: Vec<String> = scene.upstreams.iter().map(|(name, last)| upstream(name, *last)).collect();
    let who = if is_triggered { "It waits".to_owned() } else { wait(waiting) };
    let which = if after.when == When::Any && after.jobs.len() > 1 { "one of " } else { "" };
    let mut text = format!(
        "{who} for the success of {which}{}",
        list(&missing, if which.is_empty() { "and" } else { "or" })
    );
    if !told.is_empty() {
        text.push_str(&format!("; {} succeeded since the last run", have(&told)));
    }
    text.push('.');
    if !unknown.is_empty() {
        text.push_str(&format!(
            " No host's configuration names {}, so that this can last for ever.",
            names(&unknown, "and")
        ));
    }
    let missing: Vec<&Name> = scene.upstreams.iter().map(|(name, _)| name).collect();
    Some(
        Fact::new("after", text)
            .with("waiting", waiting)
            .with("missing", missing)
            .with("succeeded", told)
            .with("unknown", unknown),
    )
}

fn have(jobs: &[&Name]) -> String {
    format!("{} {}", names(jobs, "and"), if jobs.len() == 1 { "has" } else { "have" })
}

fn upstream(name: &Name, last: Option<LastExecution>) -> String {
    let Some(last) = last else { return format!("`{name}` (which has never run)") };
    let stands = match last.state {
        State::Scheduled => "waits for its time",
        State::Queued => "waits to be started",
        State::Running => "is running",
        State::Retrying => "is to be tried again",
        State::Succeeded => "succeeded before that",
        State::Failed => "has failed",
        State::Cancelled => "was cancelled",
        State::Skipped => "was skipped",
    };
    format!("`{name}` (its last execution {} {stands})", last.id)
}

fn times(scene: &Scene<'_>) -> Vec<Fact> {
    let fact = |blocker: &str, about: &'static str, what: &str| {
        let waiting = waiting(scene, blocker)?;
        let first = waiting.first_due_at.map(|at| {
            let which = if waiting.executions == 1 { "" } else { "the first " };
            format!(", {which}until {}", dated(at, scene.now))
        });
        let text = format!("{} {what}{}.", wait(waiting.executions), first.unwrap_or_default());
        Some(
            Fact::new(about, text).with("waiting", waiting.executions).with("first_at", waiting.first_due_at),
        )
    };
    let due = fact("due", "due", "for the time that it was asked for");
    let retry = fact("retry", "retry", "to be tried again after a failed attempt");
    [due, retry].into_iter().flatten().collect()
}

fn set_aside(scene: &Scene<'_>) -> Option<Fact> {
    let waiting = waiting(scene, "paused")?;
    let text = format!("{} for the job to be resumed.", wait(waiting.executions));
    Some(Fact::new("set_aside", text).with("waiting", waiting.executions))
}

/// Why what may start has not.
fn ready(scene: &Scene<'_>) -> Option<Fact> {
    let (ready, ahead) = (scene.look.ready, scene.look.ahead);
    if ready == 0 {
        return None;
    }
    let queue = queue_name(&scene.record.job);
    let (about, why) = if let Some((limit, holders)) = full_queue(scene) {
        let held = held_by(holders, scene.now);
        (
            "queue_limit",
            format!("queue `{queue}` has reached its limit of {limit} at once over all hosts, by {held}"),
        )
    } else if let Some(why) = full_plugin(scene) {
        ("plugin_limit", why)
    } else if let Some(why) = no_slot(scene) {
        ("slots", why)
    } else {
        ("ready", "a host takes it as soon as it looks, usually within a second".to_owned())
    };
    let before = match ahead {
        0 => String::new(),
        ahead => format!(" {} of other jobs stand before it in queue `{queue}`.", count(ahead, "execution")),
    };
    let text = format!("{} to be started: {why}.{before}", wait(ready));
    Some(Fact::new(about, text).with("ready", ready).with("ahead", ahead).with("queue", queue))
}

fn full_queue<'a>(scene: &'a Scene<'_>) -> Option<(u32, &'a PermitHolders)> {
    let look = scene.queue.as_ref()?;
    let limit = look.queue.total_limit?;
    (look.holders.count >= u64::from(limit)).then_some((limit, &look.holders))
}

/// Every live host that could run it runs as many of its plugin as it may.
fn full_plugin(scene: &Scene<'_>) -> Option<String> {
    let active = able(scene).filter(|host| host.state == HostState::Active).collect::<Vec<_>>();
    scene.plugin.as_ref()?.reached(&scene.record.job.plugin, &active)
}

/// The live hosts that could run it.
fn able<'a>(scene: &'a Scene<'_>) -> impl Iterator<Item = &'a HostRecord> {
    let has_plugin = |host: &&HostRecord| scene.with_plugin.contains(&host.host);
    scene.hosts.iter().filter(|host| host.state != HostState::Expired).filter(has_plugin)
}

/// Every live host that could run it is at its limit, or starts nothing new.
fn no_slot(scene: &Scene<'_>) -> Option<String> {
    let able: Vec<&HostRecord> = able(scene).collect();
    if able.is_empty() {
        return Some("no host can run it".to_owned());
    }
    let active: Vec<&&HostRecord> = able.iter().filter(|host| host.state == HostState::Active).collect();
    if active.is_empty() {
        return Some("the hosts that could run it are draining".to_owned());
    }
    let is_full = |host: &HostRecord| host.slots.is_some_and(|slots| host.running >= u64::from(slots));
    if active.iter().all(|host| is_full(host)) {
        let slots: Vec<String> = active
            .iter()
            .take(NAMED)
            .map(|host| format!("`{}` ({} of {})", host.host, host.running, host.slots.unwrap_or_default()))
            .collect();
        return Some(format!("all slots of the hosts that could run it are taken: {}", slots.join(", ")));
    }
    let per_host = scene.queue.as_ref().and_then(|look| Some((look.queue.host_limit?, look.running)));
    per_host.filter(|(limit, running)| *running >= u64::from(*limit) * active.len() as u64).map(
        |(limit, _)| {
            format!(
                "queue `{}` has reached its limit of {limit} at once on each host",
                queue_name(&scene.record.job)
            )
        },
    )
}

/// A fire that no host has taken.
fn overdue(scene: &Scene<'_>) -> Option<Fact> {
    let at = scene.record.next_fire_at.filter(|at| *at <= scene.now)?;
    let schedule = scene.record.job.schedule.as_ref()?;
    let missed = missed(scene.record, schedule, scene.now);
    let run = match missed.run.as_slice() {
        [] => "None of what is due will run.".to_owned(),
        [one] => format!("The fire of {} runs as soon as a host looks.", one.local),
        [first, .., last] => {
            format!(
                "{} fires from {} to {} run as soon as a host looks.",
                missed.run.len(),
                first.local,
                last.local
            )
        }
    };
    let then =
        missed.skipped.as_ref().map_or_else(|| run.clone(), |skipped| format!("{run} {}", skipped.text()));
    let text = format!(
        "It was to fire at {}, and no host has made an execution of that yet. {then}",
        dated(at, scene.now)
    );
    Some(Fact::new("overdue", text).with("at", at).with("run", missed.run).with("skipped", missed.skipped))
}

/// Today is a day on which its calendars do not let it fire.
fn excluded(scene: &Scene<'_>) -> Option<Fact> {
    let schedule = scene.record.job.schedule.as_ref().filter(|_| scene.record.job.enabled)?;
    let today = scene.now.to_zoned(schedule.zone().clone()).date();
    let fire = next_fire(schedule, scene.now)?;
    let calendar = fire.notes.iter().find_map(|note| match note {
        Note::Excluded { first, calendar, .. } if *first <= today => Some(calendar),
        Note::Moved { from, calendar } if *from <= today => Some(calendar),
        _ => None,
    })?;
    let text = format!("Today, {today}, is excluded by calendar `{calendar}`.");
    Some(Fact::new("excluded_day", text).with("date", today.to_string()).with("calendar", calendar))
}

/// What comes by itself.
fn waits_for_its_time(scene: &Scene<'_>, is_free: bool) -> Option<Fact> {
    let record = scene.record;
    let is_off = record.retired_at.is_some() || record.paused_at.is_some() || !record.job.enabled;
    let nothing = if is_free { "Nothing keeps it from running. " } else { "" };
    if record.job.schedule.is_some() {
        return match next(record, scene.now) {
            Ok((fire, text)) => {
                let text = format!("{nothing}It waits for its next fire, {text}.");
                Some(Fact::new("next", text).with("fire", fire))
            }
            // That is said already.
            Err(_) if is_off => None,
            Err(why) => Some(Fact::new("next", format!("It does not fire: {why}.")).with("fire", ())),
        };
    }
    if !is_free {
        return None;
    }
    let is_triggered = !scene.look.runs_for_failures_of.is_empty() || record.job.policies.after.is_some();
    let by = if is_triggered { "for another job to trigger it".to_owned() } else { "to be run".to_owned() };
    let text = format!("{nothing}It waits {by}: `innkeeper job run {}` runs it.", record.job.name);
    Some(Fact::new("next", text).with("fire", ()))
}
