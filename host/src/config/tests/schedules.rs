//! When a job fires.

use super::*;
use crate::calendar::Calendar;
use crate::schedule::{Gap, Overlap, Spec, WhenExcluded};

const CALENDARS: &str = "[calendars.days]\nexclude_weekdays = [\"SAT\"]\n[calendars.more]\n";

fn file(schedule: &str) -> String {
    format!(
        "[plugins.p]\ncomponent = \"p.wasm\"\n[jobs.a]\nplugin = \"p\"\nhandler = \"h\"\nschedule = {schedule}\n{CALENDARS}"
    )
}

fn spec(schedule: &str) -> Spec {
    valid(&file(schedule)).jobs[&name("a")].schedule.as_ref().unwrap().spec()
}

fn refused(cases: &[(&str, &str)]) {
    for (schedule, expected) in cases {
        assert_eq!(errors(&file(schedule)), [*expected], "\nsaid about\n{schedule}\n");
    }
}

#[test]
fn every_key_of_a_schedule_reaches_its_place() {
    let config = valid(FULL);
    let spec = config.jobs[&name("j")].schedule.as_ref().unwrap().spec();
    assert_eq!((spec.cron.as_deref(), spec.timezone.as_deref()), (Some("30 2 * * *"), Some("Europe/Berlin")));
    assert_eq!((spec.gap, spec.overlap), (Gap::Skip, Overlap::Both));
    assert_eq!(spec.when_excluded, WhenExcluded::NextDay);
    let weekdays = |days: &[&str]| days.iter().map(|day| day.parse().unwrap()).collect::<Vec<_>>();
    let date = |text: &str| text.parse::<jiff::civil::Date>().unwrap();
    let business = Calendar {
        name: "business".into(),
        exclude: vec![date("2026-12-25"), date("2026-12-26")],
        exclude_weekdays: weekdays(&["SAT", "SUN"]),
        include: vec![date("2026-12-19")],
        include_weekdays: vec![],
    };
    let summer = Calendar {
        name: "summer".into(),
        include_weekdays: weekdays(&["MON", "TUE", "WED", "THU", "FRI"]),
        ..Calendar::default()
    };
    assert_eq!(spec.calendars, [business, summer]);
    let every = config.jobs[&name("every")].schedule.as_ref().unwrap().spec();
    assert_eq!((every.every, every.jitter), (Some(Duration::from_secs(3600)), Some(Duration::from_secs(2))));
    assert!(every.anchor.is_some() && every.not_before.is_some() && every.not_after.is_some(), "{every:?}");
    let every_after = config.jobs[&name("every-after")].schedule.as_ref().unwrap().spec();
    assert_eq!(every_after.every_after, Some(Duration::from_secs(600)));
}

#[test]
fn what_is_drawn_is_drawn_from_the_name_of_the_job() {
    let config = valid(&file("{ cron = \"H H * * *\" }").replace(
        CALENDARS,
        "[jobs.b]\nplugin = \"p\"\nhandler = \"h\"\nschedule = { cron = \"H H * * *\" }",
    ));
    let next =
        |job| config.jobs[&name(job)].schedule.as_ref().unwrap().next_after(jiff::Timestamp::UNIX_EPOCH);
    assert_ne!(next("a"), next("b"));
}

#[test]
fn keys_that_do_not_apply_together_are_refused_with_the_reason() {
    refused(&[
        (
            "{ every = \"1h\", gap = \"skip\" }",
            "6:28: `gap` is about times of day that a clock change leaves out, and does not apply to `every`; take \
             it out",
        ),
        (
            "{ every_after = \"1h\", overlap = \"first\" }",
            "6:34: `overlap` is about times of day that a clock change repeats, and does not apply to \
             `every_after`; take it out",
        ),
        (
            "{ cron = \"0 0 * * *\", anchor = \"2030-01-01T00:00\" }",
            "6:34: `anchor` is the time that `every` counts from, and does not apply to `cron`; take it out",
        ),
        (
            "{ every_after = \"1h\", jitter = \"1m\" }",
            "6:34: `jitter` moves the fires of `cron` and `every`, and does not apply to `every_after`; take it out",
        ),
        (
            "{ at = \"2030-01-01T00:00\", not_before = \"2029-01-01\" }",
            "6:39: `not_before` bounds a schedule that repeats, and does not apply to `at`; take it out",
        ),
        (
            "{ cron = \"0 0 * * *\", when_excluded = \"skip\" }",
            "6:34: `when_excluded` says what becomes of days that a calendar excludes, and there are no \
             `calendars`; name some, or take it out",
        ),
    ]);
    let several = errors(&file("{ every = \"1h\", every_after = \"1h\", gap = \"skip\" }"));
    assert_eq!(several.len(), 1, "which one is meant comes first: {several:?}");
}

#[test]
fn calendars_are_those_of_the_file() {
    assert_eq!(spec("{ cron = \"0 0 * * *\", calendars = [\"days\"] }").calendars[0].name, "days");
    refused(&[
        (
            "{ cron = \"0 0 * * *\", calendars = [\"dys\"] }",
            "6:47: there is no calendar `dys`; did you mean `days`?",
        ),
        (
            "{ cron = \"0 0 * * *\", calendars = [\"days\", \"days\"] }",
            "6:55: `calendars` names `days` twice",
        ),
        (
            "{ cron = \"0 0 * * *\", calendars = \"days\" }",
            "6:46: `calendars` must be an array of calendars, such as [\"business-days\"], not \"days\"",
        ),
    ]);
}

#[test]
fn what_is_wrong_in_a_calendar_is_told_at_its_place() {
    let said = errors(
        "[calendars.c]\nexclude = [\"2026-12-25\", 2026-02-30, \"tomorrow\", 3, 2026-12-25T08:00:00]\n\
         include = \"2026-12-24\"\nexclude_weekdays = [\"SAT\", \"Sadurday\", 6]\ninclude_weekday = []",
    );
    assert!(said[0].starts_with("2:"), "{said:?}");
    let said = errors(
        "[calendars.c]\nexclude = [\"2026-12-25\", \"2026-02-30\", \"tomorrow\", 3, 2026-12-25T08:00:00]\n\
         include = \"2026-12-24\"\nexclude_weekdays = [\"SAT\", \"Sadurday\", 6]\ninclude_weekday = []",
    );
    assert_eq!(
        said,
        [
            "2:26: `2026-02-30` is not a date such as `2026-12-25`",
            "2:40: `tomorrow` is not a date such as `2026-12-25`",
            "2:52: `exclude` must be an array of dates, such as [\"2026-12-25\", 2026-12-26], not 3",
            "2:55: `2026-12-25T08:00:00` is not a date such as `2026-12-25`",
            "3:11: `include` must be an array of dates, such as [\"2026-12-25\", 2026-12-26], not \"2026-12-24\"",
            "4:28: `Sadurday` is not a weekday: write MON, TUE, WED, THU, FRI, SAT or SUN",
            "4:40: `exclude_weekdays` must be an array of weekdays, such as [\"SAT\", \"SUN\"], not 6",
            "5:1: unknown key `include_weekday` in [calendars.c]; did you mean `include_weekdays`?",
        ]
    );
    assert_eq!(
        errors(
            "[calendars.c]\nexclude = [2026-12-25]\nexclude_weekdays = [\"SAT\"]\ninclude = [\"2026-12-25\"]"
        ),
        ["4:11: 2026-12-25 is in `include` and in `exclude`: leave one out"]
    );
    let all = "[\"MON\", \"TUE\", \"WED\", \"THU\", \"FRI\", \"SAT\", \"SUN\"]";
    assert_eq!(
        errors(&format!("[calendars.c]\nexclude_weekdays = {all}")),
        ["1:12: calendar `c` allows no day at all"]
    );
}

#[test]
fn the_operators_sketch_of_a_file_reads() {
    let config = valid(
        r#"
        [plugins.maintenance]
        component = "plugins/maintenance.wasm"
        [jobs.session-cleanup]
        plugin = "maintenance"
        handler = "cleanup-expired-sessions"
        schedule = { cron = "30 2 * * *", timezone = "Europe/Berlin", gap = "run-after", overlap = "first" }
        concurrency = { limit = 1, when_full = "skip" }   # skip | queue | replace
        catch_up = { mode = "latest", window = "6h" }
        [jobs.weekly-report]
        plugin = "maintenance"
        handler = "send"
        schedule = { cron = "0 8 * * MON", calendars = ["business-days"] }
        after = ["session-cleanup"]
        [jobs.poll]
        plugin = "maintenance"
        handler = "poll"
        schedule = { every = "15s", jitter = "2s" }
        [queues.default]
        weight = 1
        limit = 100
        limit_per_host = 32
        [calendars.business-days]
        exclude = ["2026-12-25", "2026-12-26"]
        exclude_weekdays = ["SAT", "SUN"]
        "#,
    );
    assert_eq!((config.jobs.len(), config.queues.len()), (3, 1));
}
