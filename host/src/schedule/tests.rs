//! What schedules must do.

use super::*;
use proptest::prelude::*;

fn cron(expression: &str, zone: &str) -> Schedule {
    Schedule::new(&Spec { cron: Some(expression.into()), timezone: Some(zone.into()), ..Spec::default() })
        .unwrap()
}

fn fires(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
    let mut time: Timestamp = after.parse().unwrap();
    let mut fires = Vec::new();
    while fires.len() < count {
        let Some(next) = schedule.next_after(time) else { break };
        fires.push(next.to_string());
        time = next;
    }
    fires
}

#[test]
fn cron_reads_the_clock_of_its_zone() {
    let berlin = cron("30 2 * * *", "Europe/Berlin");
    assert_eq!(fires(&berlin, "2026-07-01T00:00:00Z", 2), ["2026-07-01T00:30:00Z", "2026-07-02T00:30:00Z"]);
    let utc = cron("30 2 * * *", "UTC");
    assert_eq!(fires(&utc, "2026-07-01T00:00:00Z", 1), ["2026-07-01T02:30:00Z"]);
}

#[test]
fn a_daily_time_in_the_gap_fires_right_after_it_and_a_repeated_one_once() {
    let berlin = cron("30 2 * * *", "Europe/Berlin");
    assert_eq!(fires(&berlin, "2026-03-28T12:00:00Z", 2), ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
    assert_eq!(fires(&berlin, "2026-10-24T12:00:00Z", 2), ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
}

#[test]
fn a_wildcard_goes_on_through_both_of_the_repeated_hours() {
    let berlin = cron("30 * * * *", "Europe/Berlin");
    assert_eq!(
        fires(&berlin, "2026-10-25T00:00:00Z", 3),
        ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]
    );
}

#[test]
fn restricted_days_of_month_and_week_combine_by_or() {
    let either = cron("0 0 13 * FRI", "UTC");
    assert_eq!(
        fires(&either, "2026-11-01T00:00:00Z", 3),
        ["2026-11-06T00:00:00Z", "2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z"]
    );
}

#[test]
fn every_counts_from_the_epoch() {
    let every = Schedule::new(&Spec { every: Some(Duration::from_secs(90)), ..Spec::default() }).unwrap();
    assert_eq!(fires(&every, "1970-01-01T00:00:00Z", 2), ["1970-01-01T00:01:30Z", "1970-01-01T00:03:00Z"]);
    assert_eq!(fires(&every, "1969-12-31T23:59:59Z", 1), ["1970-01-01T00:00:00Z"]);
}

#[test]
fn at_fires_once_with_an_offset_or_in_the_zone() {
    for (text, zone) in [
        ("2026-12-24T08:00:00+01:00", "UTC"),
        ("2026-12-24T08:00", "Europe/Berlin"),
        ("2026-12-24T07:00:00Z", "UTC"),
    ] {
        let at =
            Schedule::new(&Spec { at: Some(text.into()), timezone: Some(zone.into()), ..Spec::default() })
                .unwrap();
        assert_eq!(fires(&at, "2026-01-01T00:00:00Z", 2), ["2026-12-24T07:00:00Z"], "{text}");
    }
}

#[test]
fn of_missed_fires_the_latest_is_kept() {
    let first: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
    let now: Timestamp = "2026-11-03T12:34:56Z".parse().unwrap();
    assert_eq!(cron("0 * * * *", "UTC").latest_until(first, now).to_string(), "2026-11-03T12:00:00Z");
    let every = Schedule::new(&Spec { every: Some(Duration::from_secs(3600)), ..Spec::default() }).unwrap();
    assert_eq!(every.latest_until(first, now).to_string(), "2026-11-03T12:00:00Z");
    assert_eq!(every.latest_until(first, first), first);
}

#[test]
fn what_is_wrong_is_said_with_the_key_that_is_wrong() {
    let message = |spec: Spec| {
        let error = Schedule::new(&spec).unwrap_err();
        (error.key, error.message)
    };
    let with_cron = |text: &str| message(Spec { cron: Some(text.into()), ..Spec::default() });
    assert!(with_cron("61 * * * *").1.contains("is not a cron expression"));
    assert!(with_cron("* * *").1.contains("has 3 fields"));
    assert_eq!(
        with_cron("0 0 30 2 *"),
        (Some("cron"), "`0 0 30 2 *` never fires: no date matches it".into())
    );
    let (key, text) = message(Spec {
        every: Some(Duration::from_secs(1)),
        timezone: Some("Europe/Berlim".into()),
        ..Spec::default()
    });
    assert_eq!(key, Some("timezone"));
    assert!(text.contains("did you mean `Europe/Berlin`"), "{text}");
    assert_eq!(message(Spec::default()).0, None);
    assert_eq!(message(Spec { at: Some("tomorrow".into()), ..Spec::default() }).0, Some("at"));
    assert_eq!(message(Spec { every: Some(Duration::ZERO), ..Spec::default() }).0, Some("every"));
}

#[test]
fn a_schedule_survives_being_stored() {
    for schedule in [
        cron("30 2 * * MON-FRI", "America/New_York"),
        Schedule::new(&Spec { every: Some(Duration::from_millis(1500)), ..Spec::default() }).unwrap(),
        Schedule::new(&Spec { at: Some("2026-12-24T07:00:00Z".into()), ..Spec::default() }).unwrap(),
    ] {
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule, "{text}");
    }
}

proptest! {
    #[test]
    fn the_next_fire_is_always_later(seconds in 0i64..4_000_000_000, which in 0usize..4) {
        let schedule = [cron("*/7 3-5 * * *", "Europe/Berlin"), cron("0 0 29 2 *", "UTC"), cron("30 1 * * *", "Australia/Lord_Howe"), cron("15 * * * 1", "America/Sao_Paulo")][which].clone();
        let after = Timestamp::from_second(seconds).unwrap();
        let next = schedule.next_after(after).unwrap();
        prop_assert!(next > after);
        prop_assert!(schedule.latest_until(next, next) == next);
    }
}
