//! What holds for every schedule at every time.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use proptest::prelude::*;

use super::{Spec, at, cron, every, made};
use crate::calendar::Calendar;
use crate::schedule::{Gap, Overlap, Schedule, WhenExcluded, wall};

fn timings() -> impl Strategy<Value = Spec> {
    let zone = prop::sample::select(
        &["UTC", "Europe/Berlin", "Pacific/Apia", "America/Sao_Paulo", "Asia/Tehran"][..],
    );
    let expression = prop::sample::select(
        &[
            "30 2 * * *",
            "*/5 * * * *",
            "0 0 * * MON",
            "H H * * *",
            "H/20 3 * * *",
            "0 0 29 2 *",
            "15 */3 L * *",
            "*/10 0 1 * * *",
            "0 0 1-7 * */7",
            "0 12 LW 3-11 *",
            "59 23 31 12 *",
        ][..],
    );
    prop_oneof![
        4 => (expression, zone.clone()).prop_map(|(expression, zone)| cron(expression, zone)),
        3 => (100_000u64..400_000_000_000, zone.clone(), any::<bool>()).prop_map(|(micros, zone, anchored)| Spec {
            every: Some(Duration::from_micros(micros)),
            anchor: anchored.then(|| "2026-03-29T02:30:00.000007".into()),
            timezone: Some(zone.into()),
            ..Spec::default()
        }),
        1 => (zone, 0i64..4_000_000_000).prop_map(|(zone, second)| {
            let clock = Timestamp::from_second(second).unwrap().to_zoned(jiff::tz::TimeZone::UTC).datetime();
            at(&clock.to_string(), zone)
        }),
    ]
}

fn schedules() -> impl Strategy<Value = Spec> {
    let policies = (0usize..2, 0usize..3, 0usize..2, 0usize..4);
    let jitter = prop::option::of(1u64..200_000_000_000);
    let bounds = (prop::option::of(0i64..2_000_000_000), prop::option::of(2_000_000_000i64..4_000_000_000));
    (timings(), policies, jitter, bounds).prop_map(
        |(timing, (gap, overlap, excluded, calendar), jitter, bounds)| {
            let weekend = ["SAT", "SUN"].map(|day| day.parse().unwrap()).to_vec();
            let named = Calendar { name: "c".into(), ..Calendar::default() };
            let calendars = match calendar {
                0 => vec![Calendar { exclude_weekdays: weekend, ..named }],
                1 => vec![Calendar {
                    include: vec![Date::constant(2026, 10, 25), Date::constant(2030, 1, 1)],
                    ..named
                }],
                _ => vec![],
            };
            let second = |second: i64| Timestamp::from_second(second).unwrap().to_string();
            let clock = timing.every.is_none();
            let moves = !calendars.is_empty() && timing.every.is_none_or(|period| period.as_secs() >= 86_400);
            Spec {
                gap: if clock { [Gap::RunAfter, Gap::Skip][gap] } else { Gap::RunAfter },
                overlap: if clock {
                    [Overlap::First, Overlap::Last, Overlap::Both][overlap]
                } else {
                    Overlap::First
                },
                jitter: jitter.filter(|_| timing.at.is_none()).map(Duration::from_micros),
                not_before: bounds.0.map(second),
                not_after: bounds.1.map(second),
                when_excluded: if moves {
                    [WhenExcluded::Skip, WhenExcluded::NextDay][excluded]
                } else {
                    WhenExcluded::Skip
                },
                calendars,
                name: Some("any".into()),
                ..timing
            }
        },
    )
}

proptest! {
    #![proptest_config(super::cases(400))]

    #[test]
    fn fires_are_in_order_and_the_same_forward_and_back(spec in schedules(), micros in -1_000_000i64..4_000_000_000_000_000) {
        let Ok(schedule) = Schedule::new(&spec) else { return Ok(()) };
        let mut time = Timestamp::from_microsecond(micros).unwrap();
        let mut last = schedule.last_until(time);
        prop_assert!(last.is_none_or(|last| last <= time));
        for _ in 0..6 {
            let Some(next) = schedule.next_after(time) else {
                // There is no later one from anywhere on.
                prop_assert_eq!(schedule.last_until(Timestamp::MAX), last);
                break;
            };
            prop_assert!(next > time);
            prop_assert_eq!(next.as_nanosecond() % 1_000, 0);
            prop_assert_eq!(schedule.last_until(next), Some(next));
            prop_assert_eq!(schedule.last_until(wall::before(next).unwrap()), last);
            if let Some(last) = last {
                prop_assert_eq!(schedule.next_after(last), Some(next));
                prop_assert_eq!(schedule.next_after(wall::before(last).unwrap()), Some(last));
            }
            prop_assert_eq!(schedule.next_fire(time).map(|fire| fire.at), Some(next));
            (time, last) = (next, Some(next));
        }
    }

    #[test]
    fn the_next_fire_is_the_same_from_every_moment_before_it(
        spec in schedules(),
        micros in 0i64..4_000_000_000_000_000,
        part in 0f64..1.0,
        back in 0i64..7_200,
    ) {
        let Ok(schedule) = Schedule::new(&spec) else { return Ok(()) };
        let start = Timestamp::from_microsecond(micros).unwrap();
        let Some(next) = schedule.next_after(start) else { return Ok(()) };
        let room = next.as_microsecond() - micros;
        let between = micros + (room as f64 * part) as i64;
        let from = |micros: i64| Timestamp::from_microsecond(micros.clamp(start.as_microsecond(), next.as_microsecond() - 1)).unwrap();
        prop_assert_eq!(schedule.next_after(from(between)), Some(next));
        prop_assert_eq!(schedule.next_after(from(next.as_microsecond())), Some(next));
        // Every second of a minute, somewhere in the two hours before it.
        for second in back..back + 60 {
            prop_assert_eq!(schedule.next_after(from(next.as_microsecond() - second * 1_000_000)), Some(next));
        }
    }

    #[test]
    fn what_is_kept_is_the_same_schedule(spec in schedules(), micros in 0i64..4_000_000_000_000_000) {
        let Ok(schedule) = Schedule::new(&spec) else { return Ok(()) };
        let kept: Schedule = serde_json::from_str(&serde_json::to_string(&schedule).unwrap()).unwrap();
        prop_assert_eq!(&kept, &schedule);
        let time = Timestamp::from_microsecond(micros).unwrap();
        prop_assert_eq!(kept.next_after(time), schedule.next_after(time));
    }
}

#[test]
fn the_ends_of_time_are_answered() {
    let specs = [
        cron("* * * * *", "UTC"),
        cron("30 2 * * *", "Europe/Berlin"),
        cron("30 2 L * *", "Pacific/Apia"),
        Spec { overlap: Overlap::Both, gap: Gap::Skip, ..cron("0 0 29 2 *", "America/New_York") },
        cron("* * * * *", "Asia/Kathmandu"),
        every(1),
        every(100 * 365 * 86_400),
        Spec { anchor: Some("9999-12-30T00:00:00Z".into()), ..every(7) },
        at("9999-12-30T00:00:00Z", "UTC"),
        Spec { every_after: Some(Duration::from_secs(60)), ..Spec::default() },
        Spec { not_before: Some("9999-12-30".into()), ..every(1) },
        Spec {
            jitter: Some(Duration::from_secs(86_400)),
            name: Some("j".into()),
            ..cron("0 0 * * *", "UTC")
        },
        Spec {
            calendars: vec![Calendar {
                name: "weekdays".into(),
                exclude_weekdays: vec![
                    "SUN".parse().unwrap(),
                    "FRI".parse().unwrap(),
                    "SAT".parse().unwrap(),
                ],
                ..Calendar::default()
            }],
            when_excluded: WhenExcluded::NextDay,
            ..cron("0 0 * * *", "Asia/Tokyo")
        },
    ];
    for spec in specs {
        let schedule = made(&spec);
        for time in
            [Timestamp::MIN, Timestamp::MAX, wall::before(Timestamp::MAX).unwrap(), Timestamp::UNIX_EPOCH]
        {
            let _ = (schedule.next_after(time), schedule.last_until(time), schedule.after_finish(time));
            let _ = schedule.next_fire(time);
        }
        assert_eq!(schedule.next_after(Timestamp::MAX), None, "{spec:?}");
    }
}
