//! The jobs and queues of the simulated file: one or two of each kind that the store treats in its own
//! way, and the edits that are made to them.

use std::time::Duration;

use anyhow::Result;
use innkeeper::calendar::{Calendar, Weekday};
use innkeeper::job::{History, Job, Name, OnCrash};
use innkeeper::policy::{
    After, CatchUp, CatchUpMode, Concurrency, PerKey, Policies, Queue, Rate, When, WhenFull,
};
use innkeeper::retry::{Backoff, RetryPolicy};
use innkeeper::schedule::{Gap, Overlap, Schedule, Spec, WhenExcluded};
use jiff::Timestamp;
use serde_json::json;

/// The queue with limits.
pub const SMALL: &str = "small";

/// Jobs whose definitions stay as they are, since what is known of them counts from the beginning.
pub const KEPT: &[&str] =
    &["up-a", "up-b", "down-scheduled", "down-any", "down-all", "tell", "paced", "once", "forgotten"];

/// The plugin of all jobs.
pub const PLUGIN: &str = "p";

/// A name that is one.
#[must_use]
pub fn name(text: &str) -> Name {
    Name::new(text).unwrap_or_else(|error| unreachable!("{text} is a name: {error}"))
}

/// The queues of the file.
#[must_use]
pub fn queues() -> Vec<Queue> {
    vec![
        Queue { name: name(SMALL), weight: 3, limit: Some(2), limit_per_host: Some(1) },
        Queue { name: name("wide"), weight: 1, limit: None, limit_per_host: Some(3) },
    ]
}

/// The jobs of the file, for a simulation that begins at `start`.
///
/// # Errors
/// Where a schedule is none: a mistake in this file.
pub fn jobs(start: Timestamp) -> Result<Vec<Job>> {
    let mut jobs = clocks(start)?;
    jobs.extend(limited()?);
    jobs.extend(followers()?);
    Ok(jobs)
}

/// Jobs that are about when they fire.
fn clocks(start: Timestamp) -> Result<Vec<Job>> {
    let day = |days: i64| start + Duration::from_secs(days.unsigned_abs() * 86_400);
    let berlin = Spec { timezone: Some("Europe/Berlin".to_owned()), ..cron("30 2 * * *") };
    let new_york =
        Spec { timezone: Some("America/New_York".to_owned()), overlap: Overlap::Both, ..cron("30 1 * * *") };
    let lord_howe = Spec {
        timezone: Some("Australia/Lord_Howe".to_owned()),
        gap: Gap::Skip,
        overlap: Overlap::Last,
        ..cron("15 2 * * *")
    };
    let business = Spec {
        timezone: Some("Europe/Berlin".to_owned()),
        calendars: vec![business_days()?],
        when_excluded: WhenExcluded::NextDay,
        ..cron("0 8 * * *")
    };
    let spread = Spec {
        jitter: Some(hours(1)),
        name: Some("spread".to_owned()),
        every: Some(hours(5)),
        ..Spec::default()
    };
    let dense = Spec {
        not_before: Some(day(3).to_string()),
        not_after: Some((day(3) + hours(2)).to_string()),
        ..every(Duration::from_secs(60))
    };
    let once = Spec { at: Some(day(1).to_string()), ..Spec::default() };
    Ok(vec![
        scheduled("berlin", &berlin)?,
        scheduled("new-york", &new_york)?,
        scheduled("lord-howe", &lord_howe)?,
        scheduled("business", &business)?,
        with(scheduled("spread", &spread)?, |policies| policies.priority = 5),
        with(scheduled("none", &cron("0 */4 * * *"))?, |policies| {
            policies.catch_up = CatchUp { mode: CatchUpMode::None, ..CatchUp::default() };
        }),
        with(scheduled("all", &every(hours(3)))?, |policies| {
            let window = Some(hours(24));
            policies.catch_up = CatchUp { mode: CatchUpMode::All, window, max: 5 };
        }),
        with(scheduled("latest", &cron("20 */6 * * *"))?, |policies| {
            let window = Some(hours(2));
            policies.catch_up = CatchUp { window, ..CatchUp::default() };
            policies.queue = Some(name("wide"));
        }),
        scheduled("dense", &dense)?,
        scheduled("once", &once)?,
        scheduled("paced", &Spec { every_after: Some(hours(7)), ..Spec::default() })?,
        Job {
            history: History { keep: Some(hours(20)), last: Some(5) },
            ..scheduled("forgotten", &every(hours(8)))?
        },
    ])
}

/// Jobs that are about how much of them runs at once.
fn limited() -> Result<Vec<Job>> {
    let at_once = |limit, when_full| Some(Concurrency { limit: Some(limit), per_key: None, when_full });
    let per_key = |limit, pointer: &str, when_full| {
        let per_key = Some(PerKey { pointer: pointer.to_owned(), limit: 1 });
        Some(Concurrency { limit, per_key, when_full })
    };
    Ok(vec![
        with(scheduled("one", &every(hours(8)))?, |p| p.concurrency = at_once(1, WhenFull::Queue)),
        with(scheduled("skip", &every(hours(9)))?, |p| p.concurrency = at_once(1, WhenFull::Skip)),
        with(scheduled("replace", &every(hours(9)))?, |p| p.concurrency = at_once(1, WhenFull::Replace)),
        with(by_hand("keyed"), |p| {
            p.concurrency = per_key(Some(3), "/customer", WhenFull::Queue);
            p.queue = Some(name("wide"));
        }),
        with(by_hand("keyed-replace"), |p| {
            p.concurrency = per_key(None, "/customer", WhenFull::Replace);
        }),
        with(by_hand("rated"), |p| p.rate = Some(Rate { count: 3, period: hours(1) })),
        with(scheduled("rated-two", &every(hours(10)))?, |p| {
            p.rate = Some(Rate { count: 2, period: hours(2) });
            p.concurrency = at_once(2, WhenFull::Queue);
        }),
        with(scheduled("urgent", &every(hours(11)))?, |p| {
            p.priority = 100;
            p.queue = Some(name(SMALL));
        }),
        with(by_hand("patient"), |p| {
            p.priority = -100;
            p.queue = Some(name(SMALL));
        }),
    ])
}

/// Jobs that follow others.
fn followers() -> Result<Vec<Job>> {
    let after = |when| Some(After { jobs: vec![name("up-a"), name("up-b")], when });
    Ok(vec![
        with(scheduled("up-a", &every(hours(9)))?, |p| p.on_failure = Some(name("tell"))),
        with(scheduled("up-b", &cron("0 5,17 * * *"))?, |p| p.on_failure = Some(name("tell"))),
        with(scheduled("down-scheduled", &cron("30 */8 * * *"))?, |p| p.after = after(When::All)),
        with(by_hand("down-any"), |p| p.after = after(When::Any)),
        with(by_hand("down-all"), |p| {
            p.after = after(When::All);
            p.concurrency = Some(Concurrency { limit: Some(1), per_key: None, when_full: WhenFull::Queue });
        }),
        by_hand("tell"),
    ])
}

/// Changes a job as somebody would who edits the file. Says what was changed.
///
/// # Errors
/// Where a schedule is none: a mistake in this file.
pub fn edit(job: &mut Job, random: &mut fastrand::Rng) -> Result<String> {
    let is_kept = KEPT.contains(&job.name.as_str());
    match random.u8(..6) {
        0 | 1 if !is_kept && job.schedule.is_some() => {
            let spec = match random.u8(..4) {
                0 => every(hours(random.u64(3..12))),
                1 => Spec { timezone: Some("America/Sao_Paulo".to_owned()), ..cron("0 3,15 * * *") },
                2 => cron("H H(1-20) * * *"),
                _ => Spec { timezone: Some("Europe/Dublin".to_owned()), ..cron("*/30 1 * * *") },
            };
            let spec = Spec { name: Some(job.name.to_string()), ..spec };
            job.schedule = Some(Schedule::new(&spec)?);
            return Ok(format!("{}: another schedule", job.name));
        }
        2 if !is_kept => {
            job.enabled = !job.enabled;
            return Ok(format!("{}: enabled = {}", job.name, job.enabled));
        }
        3 if !is_kept => {
            if let Some(limits) = &mut job.policies.concurrency {
                limits.limit = limits.limit.map(|_| random.u32(1..4));
                limits.when_full = [WhenFull::Queue, WhenFull::Skip, WhenFull::Replace][random.usize(..3)];
                return Ok(format!("{}: concurrency {limits:?}", job.name));
            }
        }
        4 if !is_kept => {
            if let Some(rate) = &mut job.policies.rate {
                rate.count = random.u32(1..6);
                return Ok(format!("{}: rate {rate}", job.name));
            }
        }
        _ => {}
    }
    job.timeout += Duration::from_secs(1);
    Ok(format!("{}: another time-out", job.name))
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3_600)
}

fn cron(expression: &str) -> Spec {
    Spec { cron: Some(expression.to_owned()), ..Spec::default() }
}

fn every(period: Duration) -> Spec {
    Spec { every: Some(period), ..Spec::default() }
}

fn business_days() -> Result<Calendar> {
    let weekday = |day: &str| Weekday::try_from(day.to_owned()).map_err(anyhow::Error::msg);
    Ok(Calendar {
        name: "business-days".to_owned(),
        exclude: Vec::new(),
        exclude_weekdays: vec![weekday("SAT")?, weekday("SUN")?],
        include: Vec::new(),
        include_weekdays: Vec::new(),
    })
}

fn by_hand(job: &str) -> Job {
    Job {
        name: name(job),
        plugin: name(PLUGIN),
        handler: "h".to_owned(),
        args: json!({}),
        schedule: None,
        enabled: true,
        // Without jitter, which would be drawn from ids that no seed decides.
        retry: RetryPolicy {
            max_attempts: 3,
            backoff: Backoff::Exponential,
            initial: Duration::from_secs(600),
            maximum: hours(2),
            jitter: 0.0,
        },
        timeout: hours(4),
        on_crash: if job.len().is_multiple_of(2) { OnCrash::Retry } else { OnCrash::Fail },
        history: History::default(),
        policies: Policies::default(),
    }
}

fn scheduled(job: &str, spec: &Spec) -> Result<Job> {
    Ok(Job { schedule: Some(Schedule::new(spec)?), ..by_hand(job) })
}

fn with(mut job: Job, change: impl FnOnce(&mut Policies)) -> Job {
    change(&mut job.policies);
    job
}
