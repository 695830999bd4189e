//! How the executions of a job are treated: the keys of `[jobs.NAME]` that make its
//! [`Policies`].

use std::collections::BTreeSet;
use std::time::Duration;

use toml::de::DeValue;

use super::document::Text;
use super::places::{JobKey, JobPlaces};
use super::references::Names;
use super::table::{Entry, Table};
use super::triggers::Links;
use crate::job::Name;
use crate::policy::{
    After, CatchUp, CatchUpMode, Concurrency, HIGHEST_PRIORITY, PerKey, Policies, Queue, Rate, When, WhenFull,
};

const LONGEST_GRACE: Duration = Duration::from_secs(86_400);
const SHORTEST_PERIOD: Duration = Duration::from_millis(1);
const LONGEST_PERIOD: Duration = Duration::from_secs(366 * 86_400);
/// Every start within a period is a row in the store.
const HIGHEST_COUNT: u32 = 1_000_000;
/// A year, as times are written. A fire that is older is history.
const LONGEST_WINDOW: Duration = Duration::from_secs(31_557_600);
/// Each is an execution, made in one transaction.
const MOST_CAUGHT_UP: u32 = 10_000;

/// The job that the keys belong to.
pub(super) struct Reader<'n> {
    pub(super) job: &'n Name,
    pub(super) names: &'n Names,
    /// It has the key `schedule`, right or wrong.
    pub(super) is_scheduled: bool,
    /// It fires once for each finish or once in all, so that no more than one fire is ever missed.
    pub(super) misses_one_at_most: bool,
}

impl Reader<'_> {
    pub(super) fn policies(&self, table: &Table<'_>, place: &mut JobPlaces, links: &mut Links) -> Policies {
        let doc = table.doc;
        for (key, name) in [
            (JobKey::Queue, "queue"),
            (JobKey::Priority, "priority"),
            (JobKey::Concurrency, "concurrency"),
            (JobKey::Rate, "rate"),
            (JobKey::After, "after"),
            (JobKey::OnFailure, "on_failure"),
            (JobKey::CatchUp, "catch_up"),
        ] {
            place.note_entry(key, doc, table.entry(name).as_ref());
        }
        let queue = table.text("queue").and_then(|text| self.names.queue(doc, &text));
        Policies {
            queue: queue.filter(|queue| queue.as_str() != Queue::DEFAULT),
            priority: table.signed_integer("priority", 0, -HIGHEST_PRIORITY..=HIGHEST_PRIORITY),
            concurrency: table.entry("concurrency").and_then(|entry| concurrency(&entry)),
            rate: table.entry("rate").and_then(|entry| rate(&entry)),
            after: table.entry("after").and_then(|entry| self.after(&entry, links)),
            on_failure: self.on_failure(table, links),
            catch_up: table.entry("catch_up").map(|entry| self.catch_up(&entry)).unwrap_or_default(),
            cancel_grace: table.duration(
                "cancel_grace",
                Policies::DEFAULT_GRACE,
                Duration::ZERO..=LONGEST_GRACE,
            ),
        }
    }

    /// `["a", "b"]`, or a table that also says how many of them have to succeed.
    fn after(&self, entry: &Entry<'_>, links: &mut Links) -> Option<After> {
        const WANTED: &str = "an array of jobs, such as [\"a\", \"b\"], or a table, such as { jobs = [\"a\", \"b\"], when = \"any\" }";
        let (texts, when) = match entry.value.get_ref() {
            DeValue::Table(_) => {
                let table = entry.table(WANTED)?;
                let jobs = table.entry("jobs");
                if jobs.is_none() {
                    table.missing("jobs", "[\"a\", \"b\"]");
                }
                let texts = jobs.and_then(|jobs| jobs.texts("an array of jobs, such as [\"a\", \"b\"]"));
                let when = table.choice("when", When::All, &[("all", When::All), ("any", When::Any)]);
                table.finish();
                (texts?, when)
            }
            _ => (entry.texts(WANTED)?, When::All),
        };
        if texts.is_empty() {
            entry.problem("names no job; name at least one, or leave it out");
        }
        let (mut seen, mut jobs) = (BTreeSet::new(), Vec::new());
        for text in texts {
            let Some(job) = self.other_job(entry, &text) else { continue };
            if seen.insert(job.clone()) {
                jobs.push(job);
            } else {
                entry.problem_at(text.at, format!("names `{}` twice", text.written));
            }
        }
        let after = After { jobs, when };
        links.comes_after(self.job, self.is_scheduled, &after, entry.at());
        Some(after)
    }

    fn on_failure(&self, table: &Table<'_>, links: &mut Links) -> Option<Name> {
        let entry = table.entry("on_failure")?;
        let job = self.other_job(&entry, &entry.text()?)?;
        links.on_failure(self.job, &job, entry.at());
        Some(job)
    }

    fn other_job(&self, entry: &Entry<'_>, text: &Text<'_>) -> Option<Name> {
        let job = self.names.job(entry.doc, text)?;
        if job != *self.job {
            return Some(job);
        }
        entry.problem_at(text.at, "names the job itself; name another one");
        None
    }

    fn catch_up(&self, entry: &Entry<'_>) -> CatchUp {
        let defaults = CatchUp::default();
        let Some(table) = entry.table("a table, such as { mode = \"latest\", window = \"6h\" }") else {
            return defaults;
        };
        if !self.is_scheduled {
            entry.problem(
                "is for the fires of a schedule, and the job has none; add `schedule`, or take it out",
            );
        }
        let modes = [("none", CatchUpMode::None), ("latest", CatchUpMode::Latest), ("all", CatchUpMode::All)];
        let mode = table.choice("mode", defaults.mode, &modes);
        let window = table.entry("window");
        let max = table.entry("max");
        if let Some(window) = window.as_ref().filter(|_| mode == CatchUpMode::None) {
            window.problem("is for fires that are caught up, and with mode = \"none\" there are none");
        }
        if let Some(max) = max.filter(|_| mode != CatchUpMode::All) {
            max.problem("is for mode = \"all\"; the other modes run one missed fire at most");
        }
        if mode == CatchUpMode::All && self.misses_one_at_most {
            entry.problem(
                "with mode = \"all\" is for schedules that can miss several fires; one with `at` or \
                 `every_after` misses one at most: use \"latest\" or \"none\"",
            );
        }
        let caught_up = CatchUp {
            mode,
            window: window.map(|_| {
                let hour = Duration::from_secs(3_600);
                table.duration("window", hour, Duration::from_secs(1)..=LONGEST_WINDOW)
            }),
            max: table.integer("max", defaults.max, 1..=MOST_CAUGHT_UP),
        };
        table.finish();
        caught_up
    }
}

fn concurrency(entry: &Entry<'_>) -> Option<Concurrency> {
    let table = entry.table("a table, such as { limit = 1, when_full = \"skip\" }")?;
    let limit = table.limit("limit");
    let key = table.entry("key");
    let limit_per_key = table.entry("limit_per_key");
    if limit.is_none() && key.is_none() && limit_per_key.is_none() {
        table.missing("limit", "1");
    }
    let pointer = key.as_ref().and_then(pointer);
    let per_key = pointer.map(|pointer| PerKey { pointer, limit: table.limit("limit_per_key").unwrap_or(1) });
    if let (None, Some(without)) = (&key, limit_per_key) {
        without.problem("needs `key`, which says what it counts by, such as key = \"/customer\"");
    }
    let choices = [("queue", WhenFull::Queue), ("skip", WhenFull::Skip), ("replace", WhenFull::Replace)];
    let when_full = table.choice("when_full", WhenFull::default(), &choices);
    table.finish();
    (limit.is_some() || per_key.is_some()).then_some(Concurrency { limit, per_key, when_full })
}

/// RFC 6901: each part after a `/`, with `~` only in `~0` and `~1`.
fn pointer(entry: &Entry<'_>) -> Option<String> {
    const WANTED: &str =
        "a JSON pointer (RFC 6901) to an argument, such as \"/customer\" or \"/customer/id\"";
    if !entry.value.get_ref().is_str() {
        entry.wrong(WANTED);
        return None;
    }
    let text = entry.text()?;
    let pointer = text.value();
    if !pointer.starts_with('/') {
        entry.wrong(WANTED);
        return None;
    }
    if pointer.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
        entry.wrong(format!("{WANTED}, with `~0` for a `~` and `~1` for a `/` in a name"));
        return None;
    }
    Some(pointer.to_owned())
}

/// `"100 per 1m"`.
fn rate(entry: &Entry<'_>) -> Option<Rate> {
    const WANTED: &str =
        "a number of starts from 1 to 1000000 and a time from 1ms to 366days, such as \"100 per 1m\"";
    if !entry.value.get_ref().is_str() {
        entry.wrong(WANTED);
        return None;
    }
    let text = entry.text()?;
    let rate = text.value().split_once("per").and_then(|(count, period)| {
        let count = count.trim().parse().ok().filter(|count| (1..=HIGHEST_COUNT).contains(count))?;
        let period = humantime::parse_duration(period.trim()).ok()?;
        let fine = (SHORTEST_PERIOD..=LONGEST_PERIOD).contains(&period) && period.subsec_nanos() % 1_000 == 0;
        fine.then_some(Rate { count, period })
    });
    if rate.is_none() {
        entry.wrong(WANTED);
    }
    rate
}
