//! What the store keeps of a schedule.

use std::time::Duration;

use super::{Spec, at, cron, every, fires, made};
use crate::calendar::Calendar;
use crate::schedule::{Gap, Overlap, Schedule, WhenExcluded};

/// What releases before these keys have written, and a fire of each after the start of 2026.
const OLD: &[(&str, &str)] = &[
    (r#"{"cron":"30 2 * * MON-FRI","timezone":"America/New_York"}"#, "2026-01-01T07:30:00Z"),
    (r#"{"cron":"30 2 * * *"}"#, "2026-01-01T02:30:00Z"),
    (r#"{"cron":"@daily"}"#, "2026-01-02T00:00:00Z"),
    (r#"{"every":{"secs":1,"nanos":500000000}}"#, "2026-01-01T00:00:01.5Z"),
    (r#"{"every":{"secs":90,"nanos":0},"timezone":"Europe/Berlin"}"#, "2026-01-01T00:01:30Z"),
    (r#"{"at":"2026-12-24T07:00:00Z","timezone":"Europe/Berlin"}"#, "2026-12-24T07:00:00Z"),
];

#[test]
fn what_older_releases_have_stored_is_read_and_written_again_as_it_was() {
    for (text, fire) in OLD {
        let schedule: Schedule = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&schedule).unwrap(), *text);
        assert_eq!(fires(&schedule.spec(), "2026-01-01T00:00:00Z", 1), [*fire], "{text}");
    }
}

#[test]
fn a_name_is_stored_only_where_something_is_drawn_from_it() {
    let named = |spec: Spec| made(&Spec { name: Some("report".into()), ..spec }).spec().name;
    assert_eq!(named(cron("30 2 * * *", "UTC")), None);
    assert_eq!(named(every(60)), None);
    assert_eq!(named(at("2026-12-24T07:00:00Z", "UTC")), None);
    assert_eq!(named(Spec { jitter: Some(Duration::ZERO), ..every(60) }), None);
    assert_eq!(named(cron("H 2 * * *", "UTC")).as_deref(), Some("report"));
    assert_eq!(named(Spec { jitter: Some(Duration::from_secs(5)), ..every(60) }).as_deref(), Some("report"));
}

#[test]
fn a_time_is_stored_as_the_instant_that_it_is() {
    let kept = |spec: &Spec| serde_json::to_string(&made(spec)).unwrap();
    let text = r#"{"at":"2026-12-24T07:00:00Z","timezone":"Europe/Berlin"}"#;
    assert_eq!(kept(&at("2026-12-24T08:00", "Europe/Berlin")), text);
    assert_eq!(kept(&at("2026-12-24T08:00:00.0000001+01:00", "Europe/Berlin")), text);
    assert_eq!(kept(&cron("0 0 * * *", "UTC")), r#"{"cron":"0 0 * * *"}"#);
    assert_eq!(
        kept(&cron("0 0 * * *", "europe/berlin")),
        r#"{"cron":"0 0 * * *","timezone":"Europe/Berlin"}"#
    );
}

#[test]
fn everything_that_can_be_said_survives_being_stored() {
    let calendar = Calendar {
        name: "business-days".into(),
        exclude: vec!["2026-12-25".parse().unwrap()],
        exclude_weekdays: vec!["SAT".parse().unwrap(), "SUN".parse().unwrap()],
        include: vec!["2026-12-27".parse().unwrap()],
        include_weekdays: vec!["MON".parse().unwrap()],
    };
    let full = Spec {
        jitter: Some(Duration::from_millis(1500)),
        gap: Gap::Skip,
        overlap: Overlap::Both,
        not_before: Some("2026-01-01".into()),
        not_after: Some("2027-01-01T00:00".into()),
        calendars: vec![calendar],
        when_excluded: WhenExcluded::NextDay,
        name: Some("report".into()),
        ..cron("H 2 * * *", "America/New_York")
    };
    let anchored = Spec { anchor: Some("2026-01-01T09:00".into()), ..every(7) };
    let after = Spec { every_after: Some(Duration::from_secs(30)), ..Spec::default() };
    for spec in [full, anchored, after] {
        let schedule = made(&spec);
        assert_eq!(schedule.spec(), spec);
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule, "{text}");
    }
    let text = serde_json::to_string(&WhenExcluded::NextDay).unwrap()
        + &serde_json::to_string(&Gap::RunAfter).unwrap();
    assert_eq!(text, r#""next-day""run-after""#);
}
