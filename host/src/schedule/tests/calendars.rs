//! Days that calendars allow or not.

use jiff::civil::Date;

use super::{Spec, at, cron, every, fires, made, refused};
use crate::calendar::{Calendar, Weekday};
use crate::schedule::{Schedule, WhenExcluded};

fn calendar(name: &str) -> Calendar {
    Calendar { name: name.into(), ..Calendar::default() }
}

fn weekdays(text: &str) -> Vec<Weekday> {
    text.split(' ').map(|day| day.parse().unwrap()).collect()
}

fn dates(text: &str) -> Vec<Date> {
    text.split(' ').map(|date| date.parse().unwrap()).collect()
}

/// Monday to Friday but Christmas, and one Sunday.
fn work() -> Calendar {
    Calendar {
        exclude: dates("2026-12-25 2026-12-28"),
        exclude_weekdays: weekdays("SAT SUN"),
        include: dates("2026-12-20"),
        ..calendar("work")
    }
}

fn with(spec: Spec, calendars: &[Calendar], when_excluded: WhenExcluded) -> Spec {
    Spec { calendars: calendars.to_vec(), when_excluded, ..spec }
}

/// The days of fires, of one month.
fn days(spec: &Spec, after: &str, count: usize) -> Vec<i8> {
    let schedule = made(spec);
    let fires = fires(spec, after, count);
    fires.iter().map(|fire| super::time(fire).to_zoned(schedule.zone().clone()).day()).collect()
}

#[test]
fn excluded_days_are_left_out() {
    let spec = with(cron("30 23 * * *", "Europe/Berlin"), &[work()], WhenExcluded::Skip);
    assert_eq!(days(&spec, "2026-12-17T12:00:00Z", 9), [17, 18, 20, 21, 22, 23, 24, 29, 30]);
    let spec =
        with(Spec { timezone: Some("Europe/Berlin".into()), ..every(43_200) }, &[work()], WhenExcluded::Skip);
    assert_eq!(days(&spec, "2026-12-24T00:00:00Z", 4), [24, 29, 29, 30]);
}

#[test]
fn excluded_days_move_to_the_next_that_is_allowed_once() {
    let moved = |expression| with(cron(expression, "Europe/Berlin"), &[work()], WhenExcluded::NextDay);
    // Daily: what is moved meets what is there.
    assert_eq!(days(&moved("30 23 * * *"), "2026-12-23T12:00:00Z", 5), [23, 24, 29, 30, 31]);
    // Saturday to Sunday the 20th, which is allowed; then Saturday the 26th to Tuesday the 29th.
    assert_eq!(days(&moved("0 8 * * SAT"), "2026-12-13T12:00:00Z", 3), [14, 20, 29]);
    assert_eq!(
        fires(&moved("0 8 * * SAT"), "2026-12-20T12:00:00Z", 1),
        ["2026-12-29T07:00:00Z"],
        "at the same time of day"
    );
    let weekly = Spec { anchor: Some("2026-12-19T08:00".into()), ..every(7 * 86_400) };
    let weekly = Spec { timezone: Some("Europe/Berlin".into()), ..weekly };
    let weekly = with(weekly, &[work()], WhenExcluded::NextDay);
    assert_eq!(
        fires(&weekly, "2026-12-13T12:00:00Z", 3),
        ["2026-12-14T07:00:00Z", "2026-12-20T07:00:00Z", "2026-12-29T07:00:00Z"]
    );
}

#[test]
fn a_day_is_a_date_in_the_zone_of_the_job() {
    let only = Calendar { include: dates("2026-12-25"), ..calendar("christmas") };
    let spec = |zone| with(cron("0 * * * *", zone), std::slice::from_ref(&only), WhenExcluded::Skip);
    let auckland = fires(&spec("Pacific/Auckland"), "2026-01-01T00:00:00Z", 100);
    assert_eq!((auckland[0].as_str(), auckland.len()), ("2026-12-24T11:00:00Z", 24));
    let los_angeles = fires(&spec("America/Los_Angeles"), "2026-01-01T00:00:00Z", 100);
    assert_eq!((los_angeles[0].as_str(), los_angeles.len()), ("2026-12-25T08:00:00Z", 24));
}

#[test]
fn all_calendars_must_allow_a_day() {
    let odd = Calendar { include_weekdays: weekdays("MON WED FRI SUN"), ..calendar("odd") };
    let spec = with(cron("0 0 * * *", "UTC"), &[work(), odd], WhenExcluded::Skip);
    assert_eq!(days(&spec, "2026-12-17T12:00:00Z", 5), [18, 20, 21, 23, 30]);
}

#[test]
fn at_keeps_to_calendars() {
    let christmas = at("2026-12-25T08:00", "Europe/Berlin");
    let (key, message) = refused(&with(christmas.clone(), &[work()], WhenExcluded::Skip));
    assert_eq!((key, message.as_str()), (Some("at"), "it never fires: calendar `work` excludes 2026-12-25"));
    let moved = with(christmas, &[work()], WhenExcluded::NextDay);
    assert_eq!(fires(&moved, "2026-01-01T00:00:00Z", 2), ["2026-12-29T07:00:00Z"]);
    assert_eq!(made(&made(&moved).spec()), made(&moved));
}

#[test]
fn what_a_gap_moves_to_an_excluded_day_is_left_out() {
    // Friday 30 December 2011 is missing in Apia; its fires would be on Saturday.
    let weekend = Calendar { exclude_weekdays: weekdays("SAT SUN"), ..calendar("weekend") };
    let spec = with(cron("0 12 * * *", "Pacific/Apia"), &[weekend], WhenExcluded::Skip);
    assert_eq!(fires(&spec, "2011-12-29T12:00:00Z", 2), ["2011-12-29T22:00:00Z", "2012-01-01T22:00:00Z"]);
}

#[test]
fn days_that_never_come_are_refused() {
    let none = [
        Calendar { include_weekdays: weekdays("MON TUE"), ..calendar("early") },
        Calendar { exclude_weekdays: weekdays("MON TUE"), ..calendar("late") },
    ];
    let (key, message) = refused(&with(cron("0 0 * * *", "UTC"), &none, WhenExcluded::Skip));
    assert_eq!((key, message.as_str()), (Some("calendars"), "no day is allowed by all of these calendars"));
    let mondays = Calendar { exclude_weekdays: weekdays("MON"), ..calendar("no-mondays") };
    for spec in [cron("0 0 * * MON", "UTC"), Spec { anchor: Some("2026-11-02".into()), ..every(7 * 86_400) }]
    {
        let (key, message) = refused(&with(spec, std::slice::from_ref(&mondays), WhenExcluded::Skip));
        assert_eq!(key, Some("calendars"));
        assert_eq!(message, "it never fires: calendar `no-mondays` excludes all of its days");
    }
    // In the past, but not never.
    let past = Calendar { include: dates("1990-01-01 1990-01-08"), ..calendar("past") };
    let spec = with(cron("0 0 * * MON", "UTC"), &[past], WhenExcluded::Skip);
    assert_eq!(fires(&spec, "1989-01-01T00:00:00Z", 9).len(), 2);
    assert_eq!(fires(&spec, "2026-01-01T00:00:00Z", 9).len(), 0);
}

#[test]
fn calendars_that_contradict_themselves_are_refused() {
    for (calendar, part) in [
        (
            Calendar { include: dates("2026-01-01"), exclude: dates("2026-01-01"), ..calendar("c") },
            "is in `include` and",
        ),
        (
            Calendar {
                include_weekdays: weekdays("MON"),
                exclude_weekdays: weekdays("MON"),
                ..calendar("c")
            },
            "MON is in `include_weekdays` and",
        ),
        (
            Calendar { include: dates("2026-01-01"), exclude: dates("2026-01-02"), ..calendar("c") },
            "are the only ones that are allowed",
        ),
        (
            Calendar { exclude_weekdays: weekdays("SUN MON TUE WED THU FRI SAT"), ..calendar("c") },
            "no day at all",
        ),
    ] {
        let error = calendar.check().unwrap_err();
        assert!(error.message.contains(part), "{error}");
        let (key, _) = refused(&with(every(60), &[calendar], WhenExcluded::Skip));
        assert_eq!(key, Some("calendars"));
    }
    assert_eq!(calendar("open").check(), Ok(()));
    assert!("Someday".parse::<Weekday>().unwrap_err().contains("`Someday` is not a weekday"));
}

#[test]
fn a_calendar_is_read_as_it_is_written() {
    let text = r#"{"name":"work","exclude":["2026-12-25"],"exclude_weekdays":["SAT","sunday"]}"#;
    let calendar: Calendar = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&calendar).unwrap(), text.replace("sunday", "SUN"));
    assert!(
        !calendar.allows("2026-12-26".parse().unwrap()) && calendar.allows("2026-12-24".parse().unwrap())
    );
}

#[test]
fn years_of_excluded_days_are_searched_at_once() {
    let long = Calendar {
        exclude: Date::constant(2026, 1, 1).series(jiff::ToSpan::days(1)).take(20_000).collect(),
        ..calendar("long")
    };
    let spec = with(cron("0 0 * * *", "UTC"), &[long], WhenExcluded::NextDay);
    let schedule = Schedule::new(&spec).unwrap();
    assert_eq!(fires(&schedule.spec(), "2026-01-01T00:00:00Z", 1), ["2080-10-04T00:00:00Z"]);
}
