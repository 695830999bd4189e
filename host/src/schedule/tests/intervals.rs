//! `every`, `every_after` and `at`.

use std::time::Duration;

use super::{Spec, at, every, fires, made, refused, time};
use crate::calendar::Calendar;
use crate::schedule::{Gap, Overlap, WhenExcluded};

#[test]
fn every_counts_from_the_epoch() {
    assert_eq!(
        fires(&every(90), "1970-01-01T00:00:00Z", 2),
        ["1970-01-01T00:01:30Z", "1970-01-01T00:03:00Z"]
    );
    assert_eq!(fires(&every(90), "1969-12-31T23:59:59Z", 1), ["1970-01-01T00:00:00Z"]);
    assert_eq!(fires(&every(90), "1969-12-31T23:57:00.0000001Z", 1), ["1969-12-31T23:58:30Z"]);
}

#[test]
fn every_counts_from_its_anchor_in_both_directions() {
    for (anchor, zone) in [
        ("2026-01-01T00:00:10Z", "UTC"),
        ("2026-01-01T01:00:10", "Europe/Berlin"),
        ("2026-01-01T01:00:10+01:00", "UTC"),
    ] {
        let spec = Spec { anchor: Some(anchor.into()), timezone: Some(zone.into()), ..every(3600) };
        assert_eq!(fires(&spec, "2026-07-01T00:00:00Z", 1), ["2026-07-01T00:00:10Z"], "{anchor}");
        assert_eq!(fires(&spec, "2025-07-01T00:00:10Z", 1), ["2025-07-01T01:00:10Z"], "{anchor}");
    }
}

#[test]
fn every_counts_elapsed_time_over_changes_of_the_clock() {
    let spec = Spec {
        timezone: Some("Europe/Berlin".into()),
        anchor: Some("2026-03-28T09:00".into()),
        ..every(86_400)
    };
    // 9 in winter, 10 in summer.
    assert_eq!(fires(&spec, "2026-03-28T00:00:00Z", 2), ["2026-03-28T08:00:00Z", "2026-03-29T08:00:00Z"]);
}

#[test]
fn every_after_counts_from_the_end_of_an_execution() {
    let spec = Spec { every_after: Some(Duration::from_secs(600)), ..Spec::default() };
    let schedule = made(&spec);
    let finish = time("2026-01-01T00:00:07.123456Z");
    assert_eq!(schedule.every_after(), Some(Duration::from_secs(600)));
    assert_eq!(schedule.after_finish(finish), Some(time("2026-01-01T00:10:07.123456Z")));
    assert_eq!(schedule.next_after(finish), schedule.after_finish(finish));
    assert_eq!(schedule.last_until(finish), None);
    assert_eq!((made(&every(600)).after_finish(finish), made(&every(600)).every_after()), (None, None));
}

#[test]
fn every_after_waits_for_its_bounds_and_for_an_allowed_day() {
    let weekend = ["SAT", "SUN"].map(|day| day.parse().unwrap()).to_vec();
    let spec = Spec {
        every_after: Some(Duration::from_secs(3600)),
        timezone: Some("Europe/Berlin".into()),
        not_before: Some("2026-11-01".into()),
        not_after: Some("2026-11-30".into()),
        calendars: vec![Calendar { name: "work".into(), exclude_weekdays: weekend, ..Calendar::default() }],
        ..Spec::default()
    };
    let next = |spec: &Spec, finish: &str| made(spec).after_finish(time(finish)).map(|at| at.to_string());
    // Sunday the 1st is excluded.
    assert_eq!(next(&spec, "2026-10-20T00:00:00Z").unwrap(), "2026-11-01T23:00:00Z");
    assert_eq!(next(&spec, "2026-11-06T22:30:00Z").unwrap(), "2026-11-08T23:00:00Z");
    assert_eq!(next(&spec, "2026-11-30T22:30:00Z"), None);
    let moved = Spec { when_excluded: WhenExcluded::NextDay, ..spec };
    assert_eq!(next(&moved, "2026-11-06T22:30:00Z").unwrap(), "2026-11-08T23:30:00Z");
}

#[test]
fn at_fires_once_with_an_offset_or_in_the_zone() {
    for (text, zone) in [
        ("2026-12-24T08:00:00+01:00", "UTC"),
        ("2026-12-24T08:00", "Europe/Berlin"),
        ("2026-12-24 08:00:00", "Europe/Berlin"),
        ("2026-12-24T07:00:00Z", "UTC"),
        ("2026-12-24T08:00[Europe/Berlin]", "UTC"),
        ("2026-12-24T08:00+01:00[Europe/Berlin]", "America/New_York"),
    ] {
        assert_eq!(fires(&at(text, zone), "2026-01-01T00:00:00Z", 2), ["2026-12-24T07:00:00Z"], "{text}");
    }
    assert_eq!(
        fires(&at("2026-12-24", "Europe/Berlin"), "2026-01-01T00:00:00Z", 2),
        ["2026-12-23T23:00:00Z"]
    );
}

#[test]
fn at_keeps_the_rules_for_changes_of_the_clock() {
    let after = "2026-01-01T00:00:00Z";
    let gap = at("2026-03-29T02:30", "Europe/Berlin");
    assert_eq!(fires(&gap, after, 2), ["2026-03-29T01:00:00Z"]);
    let (key, message) = refused(&Spec { gap: Gap::Skip, ..gap });
    assert_eq!(key, Some("at"));
    assert!(message.contains("the clock goes from 2026-03-29T02:00:00 to 2026-03-29T03:00:00"), "{message}");
    for text in ["2026-10-25T02:30", "2026-10-25T02:30[Europe/Berlin]"] {
        let twice = at(text, "Europe/Berlin");
        assert_eq!(fires(&twice, after, 3), ["2026-10-25T00:30:00Z"]);
        let last = Spec { overlap: Overlap::Last, ..twice.clone() };
        assert_eq!(fires(&last, after, 3), ["2026-10-25T01:30:00Z"]);
        let both = Spec { overlap: Overlap::Both, ..twice };
        assert_eq!(fires(&both, after, 3), ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]);
        assert_eq!(made(&made(&both).spec()), made(&both));
        let until = made(&both).last_until(time("2026-10-25T01:00:00Z"));
        assert_eq!(until, Some(time("2026-10-25T00:30:00Z")));
    }
    // An offset says which of both is meant.
    let says = Spec { overlap: Overlap::Last, ..at("2026-10-25T02:30+02:00", "Europe/Berlin") };
    assert_eq!(fires(&says, after, 3), ["2026-10-25T00:30:00Z"]);
}
