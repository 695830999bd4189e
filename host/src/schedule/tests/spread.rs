//! `H` and jitter.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Spec, cron, every, fires, made, refused, time};
use crate::schedule::expression;

fn fields(text: &str, name: &str) -> [String; 6] {
    expression::read(text, Some(name)).unwrap_or_else(|error| panic!("{text}: {error}")).fields
}

#[test]
fn a_name_means_the_same_minute_in_every_release() {
    // Change these, and the minutes of all jobs out there change.
    assert_eq!(fields("H H H H H", "session-cleanup").join(" "), "0 33 18 21 7 0");
    assert_eq!(fields("H H/15 2 * * *", "weekly-report").join(" "), "58 13-59/15 2 * * *");
}

#[test]
fn h_is_within_its_field_and_spreads_over_all_of_it() {
    let names: Vec<String> = (0..2_000).map(|n| format!("job-{n}")).collect();
    for (text, place, min, max) in [
        ("H 0 * * *", 1, 0, 59),
        ("0 H * * *", 2, 0, 23),
        ("0 0 H * *", 3, 1, 28),
        ("0 0 1 H *", 4, 1, 12),
        ("0 0 * * H", 5, 0, 6),
        ("H 0 0 * * *", 0, 0, 59),
        ("H(10-19) 0 * * *", 1, 10, 19),
        ("0 0 * * H(MON-FRI)", 5, 1, 5),
    ] {
        let seen: BTreeSet<u16> =
            names.iter().map(|name| fields(text, name)[place].parse().unwrap()).collect();
        assert_eq!(seen, (min..=max).collect(), "{text}");
    }
}

#[test]
fn steps_of_h_begin_somewhere_in_the_first() {
    for n in 0..50 {
        let name = format!("job-{n}");
        let spec = Spec { name: Some(name.clone()), ..cron("H/15 * * * *", "UTC") };
        assert_eq!(
            fires(&spec, "2026-01-01T00:59:59Z", 100)
                .iter()
                .filter(|fire| fire.starts_with("2026-01-01T01:"))
                .count(),
            4
        );
        let first: u16 = fields("H(5-59)/20 * * * *", &name)[1].split('-').next().unwrap().parse().unwrap();
        assert!((5..25).contains(&first), "{first}");
    }
}

#[test]
fn h_alone_is_a_time_of_day_and_its_steps_are_a_wildcard() {
    for (text, daily) in
        [("H H * * *", true), ("H/20 2 * * *", false), ("H(0-40)/20 2 * * *", true), ("0 H/6 * * *", false)]
    {
        assert_eq!(expression::read(text, Some("job")).unwrap().pattern.daily, daily, "{text}");
    }
}

#[test]
fn forms_of_h_that_are_none_are_refused() {
    for text in ["H5", "H(", "H()", "H(5)", "H(9-5)", "H(0-60)", "H/0", "H/", "H(0-9)5", "H-5", "HH"] {
        let spec = Spec { name: Some("job".into()), ..cron(&format!("{text} * * * *"), "UTC") };
        let (key, message) = refused(&spec);
        assert_eq!(key, Some("cron"));
        assert!(message.contains("the minute"), "{text}: {message}");
    }
}

#[test]
fn jitter_is_drawn_for_each_fire_and_less_than_it_says() {
    let spec =
        |name: &str| Spec { jitter: Some(Duration::from_secs(600)), name: Some(name.into()), ..every(3600) };
    let of_one = fires(&spec("one"), "2026-01-01T00:00:00Z", 50);
    let late: BTreeSet<i64> =
        of_one.iter().map(|fire| time(fire).as_microsecond().rem_euclid(3_600_000_000)).collect();
    assert!(late.iter().all(|late| (0..600_000_000).contains(late)));
    assert!(late.len() > 40, "each is drawn anew");
    assert_eq!(of_one, fires(&spec("one"), "2026-01-01T00:00:00Z", 50));
    assert_ne!(of_one, fires(&spec("two"), "2026-01-01T00:00:00Z", 50));
}

#[test]
fn jitter_that_is_longer_than_the_distance_keeps_the_order() {
    let spec = Spec {
        jitter: Some(Duration::from_secs(7200)),
        name: Some("job".into()),
        ..cron("0,1 * * * *", "UTC")
    };
    let schedule = made(&spec);
    let mut after = time("2026-01-01T00:00:00Z");
    for n in 0..200i64 {
        let fire = schedule.next_after(after).unwrap();
        let hour = time("2026-01-01T00:00:00Z").as_second() + n / 2 * 3600;
        let (start, end) = if n % 2 == 0 { (hour, hour + 60) } else { (hour + 60, hour + 3600) };
        assert!((start..end).contains(&fire.as_second()), "{fire}");
        after = fire;
    }
}

#[test]
fn jitter_needs_a_name_and_a_schedule_to_be_added_to() {
    let jitter = Some(Duration::from_secs(1));
    let name = Some("job".to_owned());
    for spec in [
        Spec { jitter, ..every(60) },
        Spec { jitter, name: name.clone(), every_after: Some(Duration::from_secs(9)), ..Spec::default() },
        Spec { jitter, name: name.clone(), ..super::at("2026-01-01T00:00:00Z", "UTC") },
        Spec { jitter: Some(Duration::from_nanos(1)), name, ..every(60) },
    ] {
        assert_eq!(refused(&spec).0, Some("jitter"));
    }
}
