//! Schedules against a walk over every second, which knows nothing of how they search.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{Date, DateTime};
use jiff::tz::{self, TimeZone};
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

use super::{Spec, cron, made};
use crate::calendar::{Calendar, Weekday};
use crate::schedule::{Gap, Overlap, WhenExcluded, wall};

const ZONES: &[&str] = &[
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/Havana",
    "America/New_York",
    "America/Nuuk",
    "America/Santiago",
    "America/Sao_Paulo",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Europe/Dublin",
    "Pacific/Apia",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "UTC",
];

/// The fields of an expression, each as the set of its values.
struct Fields {
    sets: [BTreeSet<i8>; 5],
    daily: bool,
    both: bool,
}

impl Fields {
    fn new(expression: &str) -> Self {
        let texts: Vec<&str> = expression.split(' ').collect();
        let ranges = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)];
        Self {
            sets: std::array::from_fn(|at| set(texts[at], ranges[at])),
            daily: !texts[0].starts_with('*') && !texts[1].starts_with('*'),
            both: texts[2].starts_with('*') || texts[4].starts_with('*'),
        }
    }

    fn has_date(&self, date: Date) -> bool {
        let day = self.sets[2].contains(&date.day());
        let weekday = self.sets[4].contains(&date.weekday().to_sunday_zero_offset());
        self.sets[3].contains(&date.month()) && if self.both { day && weekday } else { day || weekday }
    }

    fn has_time(&self, clock: DateTime) -> bool {
        clock.second() == 0 && self.sets[0].contains(&clock.minute()) && self.sets[1].contains(&clock.hour())
    }
}

fn set(text: &str, (min, max): (i8, i8)) -> BTreeSet<i8> {
    let mut set = BTreeSet::new();
    for part in text.split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (first.parse().unwrap(), last.parse().unwrap()),
            None if range == "*" => (min, max),
            None => (range.parse().unwrap(), range.parse().unwrap()),
        };
        set.extend((first..=last).step_by(step.parse().unwrap()));
    }
    set
}

/// Every fire in `start..end`, from what the clock shows at each second.
fn walk(spec: &Spec, zone: &TimeZone, start: i64, end: i64) -> Vec<i64> {
    let fields = Fields::new(spec.cron.as_ref().unwrap());
    let allowed = |date: Date| spec.calendars.iter().all(|calendar| calendar.allows(date));
    let mut dates: BTreeMap<Date, bool> = BTreeMap::new();
    let mut has_date = |date: Date| {
        *dates.entry(date).or_insert_with(|| {
            let mut earlier = date;
            let mut found = allowed(date) && fields.has_date(date);
            while allowed(date) && spec.when_excluded == WhenExcluded::NextDay {
                earlier = earlier.yesterday().unwrap();
                if allowed(earlier) {
                    break;
                }
                found |= fields.has_date(earlier);
            }
            found
        })
    };
    // Seconds that the clock shows, counted from 1970. No field says more than minutes.
    let mut has = |shown: i64| {
        let clock = tz::Offset::UTC.to_datetime(Timestamp::from_second(shown).unwrap());
        fields.has_time(clock) && has_date(clock.date())
    };
    let mut shown: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    let mut fires = BTreeSet::new();
    let mut last: Option<i64> = None;
    let offset = |second: i64| i64::from(zone.to_offset(Timestamp::from_second(second).unwrap()).seconds());
    for block in (start..end).step_by(900) {
        let [first_offset, last_offset] = [block, block + 899].map(offset);
        for second in block..end.min(block + 900) {
            let now = second + if first_offset == last_offset { first_offset } else { offset(second) };
            for missing in last.map_or(now, |last| last + 1)..now {
                if fields.daily
                    && spec.gap == Gap::RunAfter
                    && missing % 60 == 0
                    && has(missing)
                    && allowed(day(now))
                {
                    fires.insert(second);
                }
            }
            if now % 60 == 0 && has(now) {
                shown.entry(now).or_default().push(second);
            }
            last = Some(now);
        }
    }
    for times in shown.into_values() {
        match spec.overlap {
            Overlap::First if fields.daily => fires.extend(times.first()),
            Overlap::Last if fields.daily => fires.extend(times.last()),
            _ => fires.extend(times),
        }
    }
    fires.into_iter().collect()
}

fn day(shown: i64) -> Date {
    tz::Offset::UTC.to_datetime(Timestamp::from_second(shown).unwrap()).date()
}

/// A change of the clock in a zone, or just a time where there is none.
fn change(zone: &TimeZone, year: i16) -> i64 {
    let start = Date::constant(year, 1, 1).to_zoned(TimeZone::UTC).unwrap().timestamp();
    wall::next_change(zone, start).map_or(start, |change| change.at).as_second()
}

prop_compose! {
    fn expressions()(
        minute in "(\\*|\\*/7|0|30|5,35|0-59/15|59)",
        hour in "(\\*|\\*/2|0|1|2|3|23|0-4|1,2,3|12)",
        day in "(\\*|\\*/2|13|1-7|25-31|\\*/3)",
        month in "(\\*|\\*|\\*/2|3-11)",
        weekday in "(\\*|\\*|\\*/2|0|1-5|0,6)",
    ) -> String {
        format!("{minute} {hour} {day} {month} {weekday}")
    }
}

prop_compose! {
    fn calendars(around: Date)(kind in 0u8..6, offsets in prop::collection::vec(-5i32..6, 1..4)) -> Vec<Calendar> {
        let weekdays = |names: &[&str]| -> Vec<Weekday> { names.iter().map(|name| name.parse().unwrap()).collect() };
        let mut dates: Vec<Date> = offsets.iter().map(|days| around + days.days()).collect();
        dates.sort();
        dates.dedup();
        let named = Calendar { name: "c".into(), ..Calendar::default() };
        match kind {
            0 => vec![Calendar { exclude: dates, ..named }],
            1 => vec![Calendar { exclude_weekdays: weekdays(&["SAT", "SUN"]), exclude: dates, ..named }],
            2 => vec![Calendar { include_weekdays: weekdays(&["SUN", "WED"]), include: dates, ..named }],
            3 => vec![
                Calendar { exclude_weekdays: weekdays(&["SAT", "SUN"]), ..named.clone() },
                Calendar { exclude: dates, ..named },
            ],
            _ => vec![],
        }
    }
}

fn weeks() -> impl Strategy<Value = (Spec, i64)> {
    let place = (prop::sample::select(ZONES), 2005i16..2040, -3i64..4, expressions(), 0u8..4);
    let policies = (0u8..2, 0u8..3, 0u8..2);
    (place, policies).prop_flat_map(|((zone, year, days, expression, seconds), (gap, overlap, excluded))| {
        let tz = TimeZone::get(zone).unwrap();
        let change = change(&tz, year);
        let around = tz.to_datetime(Timestamp::from_second(change).unwrap()).date();
        calendars(around).prop_map(move |calendars| {
            let spec = Spec {
                gap: [Gap::RunAfter, Gap::Skip][usize::from(gap)],
                overlap: [Overlap::First, Overlap::Last, Overlap::Both][usize::from(overlap)],
                when_excluded: match calendars.is_empty() {
                    true => WhenExcluded::Skip,
                    false => [WhenExcluded::Skip, WhenExcluded::NextDay][usize::from(excluded)],
                },
                calendars,
                ..cron(&expression, zone)
            };
            (spec, change + days * 86_400 + i64::from(seconds))
        })
    })
}

proptest! {
    #![proptest_config(super::cases(150))]
    #[test]
    fn a_walk_over_a_week_around_a_change_finds_the_same((spec, middle) in weeks()) {
        // The pattern may be one that no date has, or none that the calendars allow.
        let Ok(schedule) = crate::schedule::Schedule::new(&spec) else { return Ok(()) };
        // The walk sees a repeated time as such where it sees both: not at its ends.
        let (start, end) = (middle - 4 * 86_400, middle + 4 * 86_400);
        let (first, last) = (start + 86_400 / 2, end - 86_400 / 2);
        let mut expected = walk(&spec, schedule.zone(), start, end);
        expected.retain(|second| (first + 1..last).contains(second));
        let mut forward = Vec::new();
        let mut time = Timestamp::from_second(first).unwrap();
        while let Some(next) = schedule.next_after(time).filter(|next| next.as_second() < last) {
            forward.push(next.as_second());
            time = next;
        }
        prop_assert_eq!(&forward, &expected, "forward: {:?}", spec);
        let mut back = Vec::new();
        let mut until = Timestamp::from_second(last - 1).unwrap();
        while let Some(fire) = schedule.last_until(until).filter(|fire| fire.as_second() > first) {
            back.push(fire.as_second());
            until = wall::before(fire).unwrap();
        }
        back.reverse();
        prop_assert_eq!(&back, &expected, "backward: {:?}", spec);
    }
}

/// All fires of `every` in whole minutes, from all of its multiples.
fn multiples(spec: &Spec, zone: &TimeZone, start: i64, end: i64) -> Vec<i64> {
    let allowed = |date: Date| spec.calendars.iter().all(|calendar| calendar.allows(date));
    let period = i64::try_from(spec.every.unwrap().as_secs()).unwrap();
    let clock = |second: i64| zone.to_datetime(Timestamp::from_second(second).unwrap());
    let anchor = spec.anchor.as_ref().map_or(0, |text| text.parse::<Timestamp>().unwrap().as_second());
    let first = anchor + (start - 60 * 86_400 - anchor).div_euclid(period) * period;
    let mut fires = BTreeSet::new();
    for fire in (first..end).step_by(period.unsigned_abs() as usize) {
        let shown = clock(fire);
        if allowed(shown.date()) {
            fires.insert(fire);
        } else if spec.when_excluded == WhenExcluded::NextDay {
            let date = shown.date().series(1.day()).find(|date| allowed(*date)).unwrap();
            let wanted = date.to_datetime(shown.time());
            let long_before = tz::Offset::UTC.to_timestamp(wanted).unwrap().as_second() - 27 * 3600;
            fires.extend((long_before..).step_by(60).find(|second| clock(*second) >= wanted));
        }
    }
    fires.range(start..end).copied().collect()
}

proptest! {
    #![proptest_config(super::cases(100))]
    #[test]
    fn multiples_of_every_keep_to_calendars(
        (spec, middle) in weeks(),
        minutes in 1i64..12_000,
        anchor in prop::option::of(0i64..30_000_000),
    ) {
        let moves = minutes >= 24 * 60 && !spec.calendars.is_empty();
        let spec = Spec {
            every: Some(std::time::Duration::from_secs(minutes.unsigned_abs() * 60)),
            anchor: anchor.map(|minutes| Timestamp::from_second(minutes * 60).unwrap().to_string()),
            timezone: spec.timezone,
            when_excluded: if moves { spec.when_excluded } else { WhenExcluded::Skip },
            calendars: spec.calendars,
            ..Spec::default()
        };
        let schedule = made(&spec);
        let (start, end) = (middle / 60 * 60 - 20 * 86_400, middle / 60 * 60 + 20 * 86_400);
        let expected = multiples(&spec, schedule.zone(), start, end);
        let mut forward = Vec::new();
        let mut time = Timestamp::from_second(start - 1).unwrap();
        while let Some(next) = schedule.next_after(time).filter(|next| next.as_second() < end) {
            forward.push(next.as_second());
            time = next;
        }
        prop_assert_eq!(&forward, &expected, "forward: {:?}", spec);
        let mut back = BTreeSet::new();
        let mut until = Timestamp::from_second(end - 1).unwrap();
        while let Some(fire) = schedule.last_until(until).filter(|fire| fire.as_second() >= start) {
            back.insert(fire.as_second());
            until = wall::before(fire).unwrap();
        }
        prop_assert_eq!(back.into_iter().collect::<Vec<_>>(), expected, "backward: {:?}", spec);
    }
}

#[test]
fn a_missing_day_is_walked_over_as_well() {
    for (gap, when_excluded, calendars) in [
        (Gap::RunAfter, WhenExcluded::Skip, vec![]),
        (Gap::Skip, WhenExcluded::Skip, vec![]),
        (
            Gap::RunAfter,
            WhenExcluded::NextDay,
            vec![Calendar {
                name: "not-that-thursday".into(),
                exclude: vec![Date::constant(2011, 12, 29)],
                ..Calendar::default()
            }],
        ),
    ] {
        for expression in ["0 12 * * *", "0 */6 * * *", "30 0 * * 4"] {
            let spec =
                Spec { gap, when_excluded, calendars: calendars.clone(), ..cron(expression, "Pacific/Apia") };
            let schedule = made(&spec);
            let change: Timestamp = "2011-12-30T10:00:00Z".parse().unwrap();
            let (start, end) = (change.as_second() - 3 * 86_400, change.as_second() + 3 * 86_400);
            let mut found = Vec::new();
            let mut time = Timestamp::from_second(start - 1).unwrap();
            while let Some(next) = schedule.next_after(time).filter(|next| next.as_second() < end) {
                found.push(next.as_second());
                time = next;
            }
            assert_eq!(found, walk(&spec, schedule.zone(), start, end), "{spec:?}");
        }
    }
}
