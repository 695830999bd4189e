//! `schedule` of `[jobs.NAME]`.

use std::time::Duration;

use super::calendars::Calendars;
use super::references::Names;
use super::table::{Entry, Table};
use crate::calendar::Calendar;
use crate::job::Name;
use crate::schedule::{Gap, Overlap, Schedule, Spec, WhenExcluded};

/// What a schedule has exactly one of.
const KINDS: [&str; 4] = ["cron", "every", "every_after", "at"];

/// What applies to some kinds of schedules only, and what it is.
const APPLIES_TO: &[(&str, &[&str], &str)] = &[
    ("anchor", &["every"], "is the time that `every` counts from"),
    ("jitter", &["cron", "every"], "moves the fires of `cron` and `every`"),
    ("gap", &["cron", "at"], "is about times of day that a clock change leaves out"),
    ("overlap", &["cron", "at"], "is about times of day that a clock change repeats"),
    ("not_before", &["cron", "every", "every_after"], "bounds a schedule that repeats"),
    ("not_after", &["cron", "every", "every_after"], "bounds a schedule that repeats"),
];

/// True of a schedule that fires once in all, or once after each finish.
pub(super) fn misses_one_at_most(entry: &Entry<'_>) -> bool {
    let keys = entry.value.get_ref().as_table();
    keys.is_some_and(|keys| ["at", "every_after"].iter().any(|key| keys.contains_key(*key)))
}

pub(super) fn schedule(
    job: &Name,
    entry: &Entry<'_>,
    names: &Names,
    calendars: &Calendars,
) -> Option<Schedule> {
    let table = entry.table("a table, such as { cron = \"30 2 * * *\" } or { every = \"15m\" }")?;
    let (doc, header, problems) = (table.doc, table.at, table.doc.error_count());
    let spec = spec(job, &table, names, calendars);
    refuse_what_does_not_apply(&table);
    let place = |key: Option<&'static str>| key.and_then(|key| table.entry(key));
    let schedule = (doc.error_count() == problems).then(|| {
        Schedule::new(&spec).map_err(|error| {
            let place = place(error.key);
            let at = place.as_ref().map_or(header, Entry::at);
            let text = place
                .filter(|place| !place.value.get_ref().is_array())
                .and_then(|place| place.text_or_time());
            match (text, error.key) {
                // The schedule's own message would show the variable's value.
                (Some(text), Some(key)) if text.expanded => {
                    doc.error(at, format!("what `{}` stands for is not a valid `{key}`", text.written));
                }
                _ => doc.error(at, error.message),
            }
        })
    });
    table.finish();
    schedule?.ok()
}

fn spec(job: &Name, table: &Table<'_>, names: &Names, calendars: &Calendars) -> Spec {
    let text = |key| table.text(key).map(|text| text.value().to_owned());
    let time = |key| {
        let text = table.entry(key).and_then(|entry| entry.text_or_time());
        text.map(|text| text.value().to_owned())
    };
    Spec {
        cron: text("cron"),
        every: duration(table, "every"),
        every_after: duration(table, "every_after"),
        at: time("at"),
        timezone: text("timezone"),
        anchor: time("anchor"),
        jitter: duration(table, "jitter"),
        gap: table.choice("gap", Gap::default(), &[("run-after", Gap::RunAfter), ("skip", Gap::Skip)]),
        overlap: table.choice(
            "overlap",
            Overlap::default(),
            &[("first", Overlap::First), ("last", Overlap::Last), ("both", Overlap::Both)],
        ),
        not_before: time("not_before"),
        not_after: time("not_after"),
        calendars: days(table, names, calendars),
        when_excluded: table.choice(
            "when_excluded",
            WhenExcluded::default(),
            &[("skip", WhenExcluded::Skip), ("next-day", WhenExcluded::NextDay)],
        ),
        name: Some(job.to_string()),
    }
}

fn duration(table: &Table<'_>, key: &'static str) -> Option<Duration> {
    table.entry(key)?.duration(|| "a time such as \"90s\" or \"1h30m\"")
}

fn days(table: &Table<'_>, names: &Names, calendars: &Calendars) -> Vec<Calendar> {
    let Some(entry) = table.entry("calendars") else { return Vec::new() };
    let texts = entry.texts("an array of calendars, such as [\"business-days\"]").unwrap_or_default();
    let mut found: Vec<Calendar> = Vec::new();
    for text in texts {
        let calendar = names.calendar(table.doc, &text).and_then(|name| calendars.get(&name));
        match calendar {
            Some(calendar) if found.iter().any(|found| found.name == calendar.name) => {
                entry.problem_at(text.at, format!("names `{}` twice", text.written));
            }
            Some(calendar) => found.push(calendar.clone()),
            None => {}
        }
    }
    found
}

/// Also refuses what says no more than the default. Which kind is meant where several are given,
/// only the operator knows.
fn refuse_what_does_not_apply(table: &Table<'_>) {
    let kinds: Vec<&str> = KINDS.into_iter().filter(|kind| table.entry(kind).is_some()).collect();
    let [kind] = kinds[..] else { return };
    // On a day that is moved to, a fire of `every` has a time of day.
    let keeps_time_of_day = kind == "every" && table.entry("when_excluded").is_some();
    for (key, applies, what) in APPLIES_TO {
        let applies = applies.contains(&kind) || (keeps_time_of_day && ["gap", "overlap"].contains(key));
        if let Some(entry) = table.entry(key).filter(|_| !applies) {
            entry.problem_at(entry.key_at, format!("{what}, and does not apply to `{kind}`; take it out"));
        }
    }
    if let (Some(entry), None) = (table.entry("when_excluded"), table.entry("calendars")) {
        let message = "says what becomes of days that a calendar excludes, and there are no `calendars`; name \
                       some, or take it out";
        entry.problem_at(entry.key_at, message);
    }
}
