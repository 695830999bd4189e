//! `[jobs.NAME]`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::document::Text;
use super::references::Names;
use super::table::Table;
use super::{
    JobKey, JobPlaces, LONGEST_TIMEOUT, Limits, Places, PluginConfig, SHORTEST_TIMEOUT, history, values,
};
use crate::job::{History, Job, Name, OnCrash};
use crate::retry::{Backoff, RetryPolicy};
use crate::schedule::{Schedule, Spec};

const LONGEST_WAIT: Duration = Duration::from_secs(30 * 86_400);

pub(super) fn jobs(
    tables: Vec<(Name, Table<'_>)>,
    plugins: &BTreeMap<Name, PluginConfig>,
    names: &Names,
    history: History,
    places: &mut Places,
) -> BTreeMap<Name, Job> {
    let mut jobs = BTreeMap::new();
    for (name, table) in tables {
        let mut place = JobPlaces::new(table.doc.location(table.at));
        let plugin = table.required_text("plugin", "\"maintenance\"");
        place.note(JobKey::Plugin, table.doc, plugin.as_ref().map(|text| text.at));
        let plugin = plugin.and_then(|text| names.plugin(table.doc, &text));
        let handler = table.required_text("handler", "\"cleanup-expired-sessions\"");
        place.note(JobKey::Handler, table.doc, handler.as_ref().map(|text| text.at));
        let args = table.entry("args");
        place.note(JobKey::Args, table.doc, args.as_ref().map(|entry| entry.at()));
        let args = args.map(|entry| values::to_json(table.doc, &entry, &mut place.args));
        let limits = plugin.as_ref().and_then(|name| plugins.get(name)).map(|plugin| plugin.limits);
        let rest = Rest {
            schedule: schedule(&table),
            enabled: table.boolean("enabled").unwrap_or(true),
            timeout: table.duration(
                "timeout",
                limits.unwrap_or_else(Limits::default).timeout,
                SHORTEST_TIMEOUT..=LONGEST_TIMEOUT,
            ),
            retry: table.table("retry").map(retry).unwrap_or_default(),
            on_crash: table.choice(
                "on_crash",
                OnCrash::default(),
                &[("retry", OnCrash::Retry), ("fail", OnCrash::Fail)],
            ),
            history: history::history(&table, history),
        };
        table.finish();
        places.jobs.insert(name.clone(), place);
        if let (Some(plugin), Some(handler)) = (plugin, handler) {
            let args = args.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
            let handler = handler.value().to_owned();
            let Rest { schedule, enabled, timeout, retry, on_crash, history } = rest;
            jobs.insert(
                name.clone(),
                Job {
                    name,
                    plugin,
                    handler,
                    args,
                    schedule,
                    enabled,
                    retry,
                    timeout,
                    on_crash,
                    history,
                    policies: crate::policy::Policies::default(),
                },
            );
        }
    }
    jobs
}

/// The keys of a job that have a default.
struct Rest {
    schedule: Option<Schedule>,
    enabled: bool,
    timeout: Duration,
    retry: RetryPolicy,
    on_crash: OnCrash,
    history: History,
}

fn schedule(job: &Table<'_>) -> Option<Schedule> {
    let entry = job.entry("schedule")?;
    let table = entry.table("a table, such as { cron = \"30 2 * * *\" } or { every = \"15m\" }")?;
    let problems = table.doc.error_count();
    let cron = table.text("cron");
    let every = table.entry("every");
    let period = every.as_ref().and_then(|entry| entry.duration(|| "a time such as \"90s\" or \"1h30m\""));
    let at = table.entry("at").and_then(|entry| entry.text_or_time());
    let timezone = table.text("timezone");
    let (doc, header) = (table.doc, table.at);
    table.finish();
    if doc.error_count() > problems {
        return None;
    }
    let value = |text: &Option<Text<'_>>| text.as_ref().map(|text| text.value().to_owned());
    let spec = Spec {
        cron: value(&cron),
        every: period,
        at: value(&at),
        timezone: value(&timezone),
        ..Spec::default()
    };
    let error = match Schedule::new(&spec) {
        Ok(schedule) => return Some(schedule),
        Err(error) => error,
    };
    let text = match error.key {
        Some("cron") => cron,
        Some("at") => at,
        Some("timezone") => timezone,
        Some("every") => {
            doc.error(every.map_or(header, |entry| entry.at()), error.message);
            return None;
        }
        _ => None,
    };
    match (text, error.key) {
        // The schedule's own message would show the variable's value.
        (Some(text), Some(key)) if text.expanded => {
            doc.error(text.at, format!("what `{}` stands for is not a valid `{key}`", text.written));
        }
        (text, _) => doc.error(text.map_or(header, |text| text.at), error.message),
    }
    None
}

fn retry(table: Table<'_>) -> RetryPolicy {
    let defaults = RetryPolicy::default();
    let problems = table.doc.error_count();
    let waits = Duration::ZERO..=LONGEST_WAIT;
    let policy = RetryPolicy {
        max_attempts: table.integer("max_attempts", defaults.max_attempts, 1..=1000),
        backoff: table.choice(
            "backoff",
            defaults.backoff,
            &[
                ("constant", Backoff::Constant),
                ("linear", Backoff::Linear),
                ("exponential", Backoff::Exponential),
            ],
        ),
        initial: table.duration("initial", defaults.initial, waits.clone()),
        maximum: table.duration("maximum", defaults.maximum, waits),
        jitter: table.number("jitter", defaults.jitter, 0.0..=1.0),
    };
    if policy.initial > policy.maximum && table.doc.error_count() == problems {
        let [initial, maximum] = [defaults.initial, defaults.maximum].map(humantime::format_duration);
        table.doc.error(
            table.at,
            format!(
                "`initial` must not be longer than `maximum`; where left out they are \"{initial}\" and \
                 \"{maximum}\""
            ),
        );
    }
    table.finish();
    policy
}
