//! `not_before` and `not_after`.

use std::time::Duration;

use super::{Spec, cron, every, fires, made, refused, time};

#[test]
fn bounds_are_themselves_allowed() {
    let spec = Spec {
        not_before: Some("2026-05-02T12:00:00Z".into()),
        not_after: Some("2026-05-03T12:00:00Z".into()),
        ..cron("0 12 * * *", "UTC")
    };
    assert_eq!(fires(&spec, "2026-01-01T00:00:00Z", 5), ["2026-05-02T12:00:00Z", "2026-05-03T12:00:00Z"]);
    let schedule = made(&spec);
    assert_eq!(schedule.last_until(time("2027-01-01T00:00:00Z")), Some(time("2026-05-03T12:00:00Z")));
    assert_eq!(schedule.last_until(time("2026-05-02T11:59:59Z")), None);
}

#[test]
fn a_bare_date_is_all_of_it_in_the_zone() {
    let spec = Spec {
        timezone: Some("Europe/Berlin".into()),
        not_before: Some("2026-03-29".into()),
        not_after: Some("2026-03-29".into()),
        ..every(3600)
    };
    let fires = fires(&spec, "2026-01-01T00:00:00Z", 100);
    // The day of the change has 23 hours.
    assert_eq!(fires.len(), 23);
    assert_eq!((fires[0].as_str(), fires[22].as_str()), ("2026-03-28T23:00:00Z", "2026-03-29T21:00:00Z"));
}

/// Bounds in Berlin, and the first and last fire of `every = "30m"` between them.
#[rustfmt::skip]
const CASES: &[(&str, &str, &str, &str)] = &[
    ("2026-03-29T02:15", "2026-03-30", "2026-03-29T01:00:00Z", "2026-03-30T21:30:00Z"),
    ("2026-03-28", "2026-03-29T02:45", "2026-03-27T23:00:00Z", "2026-03-29T00:30:00Z"),
    ("2026-10-25T02:30", "2026-10-25T02:30", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
    ("2026-10-25", "2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T22:30:00Z"),
    ("2026-10-25T02:30+01:00", "2026-10-25T03:00", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"),
];

#[test]
fn bounds_on_a_change_of_the_clock_leave_out_nothing_of_what_they_name() {
    for (not_before, not_after, first, last) in CASES {
        let spec = Spec {
            timezone: Some("Europe/Berlin".into()),
            not_before: Some((*not_before).into()),
            not_after: Some((*not_after).into()),
            ..every(1800)
        };
        let fires = fires(&spec, "2026-01-01T00:00:00Z", 1000);
        assert_eq!(
            (fires.first().unwrap().as_str(), fires.last().unwrap().as_str()),
            (*first, *last),
            "{not_before}"
        );
    }
}

#[test]
fn a_date_that_a_zone_does_not_have_is_no_time_at_all() {
    let spec = Spec {
        timezone: Some("Pacific/Apia".into()),
        not_before: Some("2011-12-30".into()),
        not_after: Some("2011-12-30T23:00".into()),
        ..every(60)
    };
    let (key, message) = refused(&spec);
    assert_eq!(key, Some("not_after"));
    assert!(message.contains("before `not_before`"), "{message}");
    let until_new_year = Spec { not_after: Some("2011-12-31".into()), ..spec };
    assert_eq!(fires(&until_new_year, "2011-01-01T00:00:00Z", 1), ["2011-12-30T10:00:00Z"]);
}

#[test]
fn jitter_stays_within_the_bounds() {
    let spec = Spec {
        not_before: Some("2026-05-01".into()),
        not_after: Some("2026-05-31".into()),
        jitter: Some(Duration::from_secs(86_400)),
        name: Some("report".into()),
        ..cron("0 12 * * *", "UTC")
    };
    let fires = fires(&spec, "2026-01-01T00:00:00Z", 100);
    assert!(fires.iter().all(|fire| fire.starts_with("2026-05-")), "{fires:?}");
    assert!((30..=32).contains(&fires.len()));
}

#[test]
fn bounds_that_are_none_are_refused() {
    for (key, spec) in [
        ("not_before", Spec { not_before: Some("soon".into()), ..every(60) }),
        ("not_before", Spec { not_before: Some("2026-02-30".into()), ..every(60) }),
        ("not_after", Spec { not_after: Some("2026-13-01T00:00".into()), ..every(60) }),
        (
            "not_after",
            Spec { not_before: Some("2026-02-02".into()), not_after: Some("2026-02-01".into()), ..every(60) },
        ),
    ] {
        assert_eq!(refused(&spec).0, Some(key));
    }
}
