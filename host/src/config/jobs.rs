//! `[jobs.NAME]`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::calendars::Calendars;
use super::places::{JobKey, JobPlaces, Places};
use super::references::Names;
use super::table::Table;
use super::triggers::Links;
use super::{LONGEST_TIMEOUT, PluginConfig, SHORTEST_TIMEOUT, history, policies, schedule, values};
use crate::job::{History, Job, Name, OnCrash};
use crate::retry::{Backoff, RetryPolicy};

const LONGEST_WAIT: Duration = Duration::from_secs(30 * 86_400);

/// What the jobs of a file refer to.
pub(super) struct Surroundings<'a> {
    pub(super) plugins: &'a BTreeMap<Name, PluginConfig>,
    pub(super) names: &'a Names,
    pub(super) calendars: &'a Calendars,
    /// Of `[store]`.
    pub(super) history: History,
}

pub(super) fn jobs(
    tables: Vec<(Name, Table<'_>)>,
    around: &Surroundings<'_>,
    places: &mut Places,
) -> BTreeMap<Name, Job> {
    let mut jobs = BTreeMap::new();
    let mut links = Links::default();
    let doc = tables.first().map(|(_, table)| table.doc);
    for (name, table) in tables {
        let mut place = JobPlaces::new(table.doc.location(table.at));
        if let Some(job) = job(&name, table, around, &mut place, &mut links) {
            jobs.insert(name.clone(), job);
        }
        places.jobs.insert(name, place);
    }
    if let Some(doc) = doc {
        links.finish(doc);
    }
    jobs
}

fn job(
    name: &Name,
    table: Table<'_>,
    around: &Surroundings<'_>,
    place: &mut JobPlaces,
    links: &mut Links,
) -> Option<Job> {
    let Surroundings { plugins, names, calendars, history } = *around;
    let plugin = table.required_text("plugin", "\"maintenance\"");
    place.note(JobKey::Plugin, table.doc, plugin.as_ref().map(|text| text.at));
    let plugin = plugin.and_then(|text| names.plugin(table.doc, &text));
    let handler = table.required_text("handler", "\"cleanup-expired-sessions\"");
    place.note(JobKey::Handler, table.doc, handler.as_ref().map(|text| text.at));
    let args = table.entry("args");
    place.note_entry(JobKey::Args, table.doc, args.as_ref());
    let args = args.map(|entry| values::to_json(table.doc, &entry, &mut place.args));
    let limits = plugin.as_ref().and_then(|name| plugins.get(name)).map(|plugin| plugin.limits);
    let scheduled = table.entry("schedule");
    place.note_entry(JobKey::Schedule, table.doc, scheduled.as_ref());
    let policies = policies::Reader {
        job: name,
        names,
        is_scheduled: scheduled.is_some(),
        misses_one_at_most: scheduled.as_ref().is_some_and(schedule::misses_one_at_most),
    };
    let policies = policies.policies(&table, place, links);
    let schedule = scheduled.and_then(|entry| schedule::schedule(name, &entry, names, calendars));
    let enabled = table.boolean("enabled").unwrap_or(true);
    let timeout = limits.unwrap_or_default().timeout;
    let timeout = table.duration("timeout", timeout, SHORTEST_TIMEOUT..=LONGEST_TIMEOUT);
    let retry = table.table("retry").map(retry).unwrap_or_default();
    let crash_choices = [("retry", OnCrash::Retry), ("fail", OnCrash::Fail)];
    let on_crash = table.choice("on_crash", OnCrash::default(), &crash_choices);
    let history = history::history(&table, history);
    table.finish();
    Some(Job {
        name: name.clone(),
        plugin: plugin?,
        handler: handler?.value().to_owned(),
        args: args.unwrap_or_else(|| Value::Object(serde_json::Map::new())),
        schedule,
        enabled,
        retry,
        timeout,
        on_crash,
        history,
        policies,
    })
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
