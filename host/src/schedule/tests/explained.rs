//! What is said about schedules and fires.

use std::time::Duration;

use super::{Spec, at, cron, every, made, time};
use crate::calendar::Calendar;
use crate::schedule::{Gap, Overlap, WhenExcluded};

fn work() -> Vec<Calendar> {
    vec![Calendar {
        name: "work".into(),
        exclude: vec!["2026-12-25".parse().unwrap()],
        exclude_weekdays: vec!["SUN".parse().unwrap(), "SAT".parse().unwrap()],
        ..Calendar::default()
    }]
}

/// The notes of the fires after a time, one line for each that has some.
fn notes(spec: &Spec, after: &str, count: usize) -> Vec<String> {
    let schedule = made(spec);
    let mut lines = Vec::new();
    let mut after = time(after);
    for _ in 0..count {
        let Some(fire) = schedule.next_fire(after) else { break };
        let notes: Vec<String> = fire.notes.iter().map(ToString::to_string).collect();
        if !notes.is_empty() {
            lines.push(format!("{}: {}", fire.at, notes.join("; ")));
        }
        after = fire.at;
    }
    lines
}

#[test]
fn changes_of_the_clock_are_noted_where_they_matter() {
    let daily = cron("30 2 * * *", "Europe/Berlin");
    assert_eq!(
        notes(&daily, "2026-01-01T00:00:00Z", 365),
        [
            "2026-03-29T01:00:00Z: the clock leaves out 2026-03-29 02:30: runs right after the gap",
            "2026-10-25T00:30:00Z: the clock shows this time twice: runs the first time only",
        ]
    );
    let skip = Spec { gap: Gap::Skip, overlap: Overlap::Both, ..daily.clone() };
    assert_eq!(
        notes(&skip, "2026-01-01T00:00:00Z", 365),
        [
            "2026-03-30T00:30:00Z: the clock leaves out 2026-03-29 02:30 before it: did not run then",
            "2026-10-25T00:30:00Z: the clock shows this time twice: runs both times, this is the first time",
            "2026-10-25T01:30:00Z: the clock shows this time twice: runs both times, this is the second time",
        ]
    );
    let last = Spec { overlap: Overlap::Last, ..daily };
    assert_eq!(
        notes(&last, "2026-10-01T00:00:00Z", 60),
        ["2026-10-25T01:30:00Z: the clock shows this time twice: runs the second time only"]
    );
    assert_eq!(notes(&cron("30 12 * * *", "Europe/Berlin"), "2026-01-01T00:00:00Z", 400), [""; 0]);
    assert_eq!(notes(&cron("30 * * * *", "Europe/Berlin"), "2026-10-24T20:00:00Z", 12).len(), 2);
    let twice = Spec { overlap: Overlap::Both, ..at("2026-10-25T02:30", "Europe/Berlin") };
    assert_eq!(notes(&twice, "2026-01-01T00:00:00Z", 3).len(), 2);
}

#[test]
fn what_calendars_do_is_noted() {
    let with = |spec: Spec, when_excluded| Spec { calendars: work(), when_excluded, ..spec };
    let daily = cron("0 8 * * *", "Europe/Berlin");
    assert_eq!(
        notes(&with(daily.clone(), WhenExcluded::Skip), "2026-12-16T12:00:00Z", 8),
        [
            "2026-12-21T07:00:00Z: calendar `work` excludes Saturday 2026-12-19 before it, and 1 more day",
            "2026-12-28T07:00:00Z: calendar `work` excludes Friday 2026-12-25 before it, and 2 more days",
        ]
    );
    assert_eq!(
        notes(&with(cron("0 8 * * FRI", "Europe/Berlin"), WhenExcluded::NextDay), "2026-12-16T12:00:00Z", 3),
        ["2026-12-28T07:00:00Z: calendar `work` excludes Friday 2026-12-25: moved here"]
    );
    assert_eq!(
        notes(
            &with(at("2026-12-25T08:00", "Europe/Berlin"), WhenExcluded::NextDay),
            "2026-12-16T12:00:00Z",
            3
        ),
        ["2026-12-28T07:00:00Z: calendar `work` excludes Friday 2026-12-25: moved here"]
    );
    // On Saturday, before and after its time.
    for (now, count) in [
        ("2026-12-19T06:00:00Z", "excludes Saturday 2026-12-19 before it, and 1 more day"),
        ("2026-12-19T12:00:00Z", "excludes Sunday 2026-12-20 before it"),
    ] {
        let lines = notes(&with(daily.clone(), WhenExcluded::Skip), now, 1);
        assert_eq!(lines, [format!("2026-12-21T07:00:00Z: calendar `work` {count}")]);
        let lines = notes(&with(every(86_400), WhenExcluded::Skip), now, 1);
        assert_eq!(lines, ["2026-12-21T00:00:00Z: calendar `work` excludes Sunday 2026-12-20 before it"]);
    }
    assert_eq!(
        notes(&with(every(86_400), WhenExcluded::Skip), "2026-12-24T12:00:00Z", 2),
        ["2026-12-28T00:00:00Z: calendar `work` excludes Friday 2026-12-25 before it, and 2 more days"]
    );
    assert_eq!(
        notes(&with(cron("0 8 * * MON,FRI", "Europe/Berlin"), WhenExcluded::Skip), "2026-12-24T12:00:00Z", 2),
        ["2026-12-28T07:00:00Z: calendar `work` excludes Friday 2026-12-25 before it"]
    );
}

#[test]
fn jitter_is_noted() {
    let spec = Spec { jitter: Some(Duration::from_secs(60)), name: Some("job".into()), ..every(3600) };
    let lines = notes(&spec, "2026-01-01T00:00:00Z", 3);
    assert!(lines.len() == 3 && lines.iter().all(|line| line.contains(": later by jitter of ")), "{lines:?}");
}

/// Each line of what is expected is a sentence.
fn explained(spec: &Spec, expected: &str) {
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(made(spec).sentences(), expected, "{spec:?}");
}

#[test]
fn expressions_are_explained_in_sentences() {
    explained(
        &cron("30 2 * * *", "Europe/Berlin"),
        "Runs at 02:30, every day, on the clock of Europe/Berlin.
         When that clock goes forward and leaves out its time, it runs at the first moment after the gap; when it goes back and shows its time twice, it runs the first time only.",
    );
    explained(
        &Spec { gap: Gap::Skip, overlap: Overlap::Both, ..cron("15,45 2,3 * * MON", "Europe/Berlin") },
        "Runs at 02:15, 02:45, 03:15 and 03:45, on Monday, on the clock of Europe/Berlin.
         When that clock goes forward and leaves out its time, it does not run that day; when it goes back and shows its time twice, it runs both times.",
    );
    explained(
        &cron("*/5 * * * *", "Europe/Berlin"),
        "Runs every 5 minutes, every day, on the clock of Europe/Berlin.
         When that clock goes back, it runs in both of the repeated hours, and when it goes forward, nothing runs for the times that are left out: its minute or hour is a wildcard.",
    );
    explained(
        &cron("0 0 13 * FRI", "UTC"),
        "Runs at 00:00, on day 13 or Friday, on the clock of UTC.
         A day matches if its day of the month or its day of the week does: with both fields given, one is enough.
         That clock never goes forward or back.",
    );
    explained(
        &cron("0 0 1-7 * */7", "UTC"),
        "Runs at 00:00, on day 1-7 (if it is also Sunday), on the clock of UTC.
         A day must match both the day of the month and the day of the week, since one of these fields begins with `*`.
         That clock never goes forward or back.",
    );
}

#[test]
fn all_else_is_explained_in_sentences() {
    let spec = Spec {
        name: Some("session-cleanup".into()),
        jitter: Some(Duration::from_secs(90)),
        calendars: work(),
        when_excluded: WhenExcluded::NextDay,
        not_before: Some("2026-01-01".into()),
        not_after: Some("2026-12-31T12:00:00Z".into()),
        ..cron("H H * * *", "Asia/Tokyo")
    };
    let sentences = made(&spec).sentences();
    assert_eq!(sentences[0], "Runs at 18:33, every day, on the clock of Asia/Tokyo.");
    assert_eq!(
        sentences[1],
        "`H` is drawn from the name of the job, `session-cleanup`: for it, the expression is `33 18 * * *`."
    );
    assert_eq!(
        sentences[3..],
        [
            "Calendar `work` allows all days but Saturday and Sunday and 2026-12-25.",
            "What falls on another day moves to the same time of the next allowed day.",
            "Each time is up to 1m 30s later, drawn from the name of the job and that time, so that every host draws \
             the same.",
            "It does not run before 2026-01-01 00:00:00+09:00 Asia/Tokyo.",
            "It does not run after 2026-12-31 21:00:00+09:00 Asia/Tokyo.",
        ]
    );
    explained(
        &every(900),
        "Runs every 15m, counted from 1970-01-01T00:00:00Z, however long it takes.
         It counts elapsed time: changes of the clock do not matter.",
    );
    explained(
        &Spec { every_after: Some(Duration::from_secs(60)), ..Spec::default() },
        "Runs 1m after the end of its last execution.
         It counts elapsed time: changes of the clock do not matter.",
    );
    explained(
        &at("2026-12-24T08:00", "Europe/Berlin"),
        "Runs once, at 2026-12-24 08:00:00+01:00 Europe/Berlin.",
    );
}

#[test]
fn the_short_form_names_the_schedule_and_its_zone() {
    for (spec, text) in [
        (cron("30 2 * * *", "Europe/Berlin"), "cron \"30 2 * * *\" Europe/Berlin"),
        (cron("@daily", "UTC"), "cron \"@daily\" UTC"),
        (every(90), "every 1m 30s"),
        (
            Spec { every_after: Some(Duration::from_secs(90)), ..Spec::default() },
            "every 1m 30s after the last",
        ),
        (at("2026-12-24T07:00:00Z", "Europe/Berlin"), "at 2026-12-24T08:00:00+01:00[Europe/Berlin]"),
    ] {
        assert_eq!(made(&spec).to_string(), text);
    }
}
