//! What a cron expression means, on a clock without changes.

use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

use super::{cron, fires, made, refused, times};
use crate::schedule::Schedule;
use crate::schedule::expression;

/// Expression, from when, and the fires that follow. All times are UTC.
#[rustfmt::skip]
const CASES: &[(&str, &str, &str)] = &[
    // Minutes and hours.
    ("* * * * *", "2026-01-01T23:58", "2026-01-01T23:59 2026-01-02T00:00"),
    ("*/20 * * * *", "2026-01-01T10:41", "2026-01-01T11:00 2026-01-01T11:20 2026-01-01T11:40"),
    ("7-59/20 * * * *", "2026-01-01T10:00", "2026-01-01T10:07 2026-01-01T10:27 2026-01-01T10:47 2026-01-01T11:07"),
    ("0,1,59 12 * * *", "2026-01-01T12:00", "2026-01-01T12:01 2026-01-01T12:59 2026-01-02T12:00"),
    ("50-10/10 5 * * *", "2026-01-01T00:00", "2026-01-01T05:00 2026-01-01T05:10 2026-01-01T05:50 2026-01-02T05:00"),
    ("0 22-2 * * *", "2026-01-01T00:30", "2026-01-01T01:00 2026-01-01T02:00 2026-01-01T22:00 2026-01-01T23:00"),
    ("0 22-2/2 * * *", "2026-01-01T00:30", "2026-01-01T02:00 2026-01-01T22:00 2026-01-02T00:00"),
    ("  30\t2   * * * ", "2026-01-01T00:00", "2026-01-01T02:30"),
    ("05 007 * * *", "2026-01-01T00:00", "2026-01-01T07:05"),
    // Days of the month.
    ("0 0 31 * *", "2026-01-31T00:00", "2026-03-31T00:00 2026-05-31T00:00 2026-07-31T00:00 2026-08-31T00:00"),
    ("0 0 29-31 2 *", "2026-01-01T00:00", "2028-02-29T00:00 2032-02-29T00:00"),
    ("0 0 29 2 *", "2095-01-01T00:00", "2096-02-29T00:00 2104-02-29T00:00"),
    ("0 0 28-3 * *", "2026-02-27T00:00", "2026-02-28T00:00 2026-03-01T00:00 2026-03-02T00:00 2026-03-03T00:00 2026-03-28T00:00"),
    ("0 0 L * *", "2027-12-31T12:00", "2028-01-31T00:00 2028-02-29T00:00 2028-03-31T00:00 2028-04-30T00:00"),
    ("0 0 L 2 *", "2098-01-01T00:00", "2098-02-28T00:00 2099-02-28T00:00 2100-02-28T00:00"),
    ("0 0 L,15 2 *", "2026-01-01T00:00", "2026-02-15T00:00 2026-02-28T00:00"),
    ("0 0 LW * *", "2026-01-01T00:00", "2026-01-30T00:00 2026-02-27T00:00 2026-03-31T00:00 2026-04-30T00:00 2026-05-29T00:00"),
    ("0 0 15W * *", "2026-02-01T00:00", "2026-02-16T00:00 2026-03-16T00:00 2026-04-15T00:00 2026-05-15T00:00 2026-06-15T00:00"),
    ("0 0 1W * *", "2026-07-15T00:00", "2026-08-03T00:00 2026-09-01T00:00 2026-10-01T00:00 2026-11-02T00:00"),
    ("0 0 31W * *", "2026-05-01T00:00", "2026-05-29T00:00 2026-07-31T00:00 2026-08-31T00:00 2026-10-30T00:00"),
    ("0 0 LW,15W 1 *", "2026-01-01T00:00", "2026-01-15T00:00 2026-01-30T00:00"),
    // Months.
    ("0 0 1 JAN,jul *", "2026-01-15T00:00", "2026-07-01T00:00 2027-01-01T00:00"),
    ("0 0 1 NOV-FEB *", "2026-02-15T00:00", "2026-11-01T00:00 2026-12-01T00:00 2027-01-01T00:00 2027-02-01T00:00 2027-11-01T00:00"),
    ("0 0 1 */5 *", "2026-01-15T00:00", "2026-06-01T00:00 2026-11-01T00:00 2027-01-01T00:00"),
    // Days of the week. 1 November 2026 is a Sunday.
    ("0 0 * * 0", "2026-11-01T00:00", "2026-11-08T00:00"),
    ("0 0 * * 7", "2026-11-01T00:00", "2026-11-08T00:00"),
    ("0 0 * * MON-FRI", "2026-11-05T00:00", "2026-11-06T00:00 2026-11-09T00:00"),
    ("0 0 * * FRI-MON", "2026-11-02T00:00", "2026-11-06T00:00 2026-11-07T00:00 2026-11-08T00:00 2026-11-09T00:00 2026-11-13T00:00"),
    ("0 0 * * FRI-SUN", "2026-11-02T00:00", "2026-11-06T00:00 2026-11-07T00:00 2026-11-08T00:00 2026-11-13T00:00"),
    ("0 0 * * 5-7", "2026-11-02T00:00", "2026-11-06T00:00 2026-11-07T00:00 2026-11-08T00:00 2026-11-13T00:00"),
    ("0 0 * * 7-1", "2026-11-02T00:00", "2026-11-08T00:00 2026-11-09T00:00 2026-11-15T00:00"),
    ("0 0 * * 6-0", "2026-11-02T00:00", "2026-11-07T00:00 2026-11-08T00:00 2026-11-14T00:00"),
    ("0 0 * * SUN-SAT", "2026-11-02T00:00", "2026-11-03T00:00 2026-11-04T00:00"),
    ("0 0 * * 7-7", "2026-11-02T00:00", "2026-11-08T00:00 2026-11-15T00:00"),
    ("0 0 * * FRI-MON/2", "2026-11-02T00:00", "2026-11-06T00:00 2026-11-08T00:00 2026-11-13T00:00"),
    ("0 0 * * tueL", "2026-11-01T00:00", "2026-11-24T00:00 2026-12-29T00:00"),
    ("0 0 * * 2#L", "2026-11-01T00:00", "2026-11-24T00:00 2026-12-29T00:00"),
    ("0 0 * * 7L", "2026-11-01T00:00", "2026-11-29T00:00 2026-12-27T00:00"),
    ("0 0 * * TUE#1,THU#3", "2026-11-01T00:00", "2026-11-03T00:00 2026-11-19T00:00 2026-12-01T00:00 2026-12-17T00:00"),
    ("0 0 * * 0#5", "2026-11-01T00:00", "2026-11-29T00:00 2027-01-31T00:00"),
    ("0 0 * * FRIL,MON", "2026-11-19T00:00", "2026-11-23T00:00 2026-11-27T00:00 2026-11-30T00:00"),
    // Both: one of them is enough, unless a field begins with `*`.
    ("0 0 13 * FRI", "2026-11-01T00:00", "2026-11-06T00:00 2026-11-13T00:00 2026-11-20T00:00 2026-11-27T00:00 2026-12-04T00:00 2026-12-11T00:00 2026-12-13T00:00"),
    ("0 0 1-7 * */7", "2026-11-02T00:00", "2026-12-06T00:00 2027-01-03T00:00"),
    ("0 0 */13 * FRI", "2026-11-01T00:00", "2026-11-27T00:00 2027-01-01T00:00"),
    ("0 0 */2 * */3", "2026-11-01T00:00", "2026-11-07T00:00 2026-11-11T00:00 2026-11-15T00:00"),
    ("0 0 ? * FRI", "2026-11-01T00:00", "2026-11-06T00:00 2026-11-13T00:00"),
    ("0 0 13 * ?", "2026-11-01T00:00", "2026-11-13T00:00 2026-12-13T00:00"),
    ("0 0 1,* * FRI", "2026-11-01T00:00", "2026-11-02T00:00 2026-11-03T00:00"),
    ("0 0 L * FRI", "2026-11-21T00:00", "2026-11-27T00:00 2026-11-30T00:00 2026-12-04T00:00"),
    ("0 0 29 2 */7", "2026-01-01T00:00", "2032-02-29T00:00 2060-02-29T00:00 2088-02-29T00:00 2128-02-29T00:00"),
    // Short forms.
    ("@hourly", "2026-01-01T22:10", "2026-01-01T23:00 2026-01-02T00:00"),
    ("@Daily", "2026-01-01T22:10", "2026-01-02T00:00 2026-01-03T00:00"),
    ("@midnight", "2026-01-01T22:10", "2026-01-02T00:00"),
    ("@weekly", "2026-11-01T00:00", "2026-11-08T00:00"),
    ("@monthly", "2026-11-01T00:00", "2026-12-01T00:00"),
    ("@yearly", "2026-11-01T00:00", "2027-01-01T00:00 2028-01-01T00:00"),
    ("@annually", "2026-11-01T00:00", "2027-01-01T00:00"),
];

#[test]
fn expressions_mean_what_they_say() {
    for (expression, after, expected) in CASES {
        let schedule = made(&cron(expression, "UTC"));
        let expected = times(expected);
        let mut found = Vec::new();
        let mut time: Timestamp = format!("{after}:00Z").parse().unwrap();
        while found.len() < expected.len() {
            time = schedule.next_after(time).unwrap();
            found.push(time);
        }
        assert_eq!(found, expected, "{expression}");
    }
}

#[test]
fn six_fields_begin_with_seconds() {
    assert_eq!(
        fires(&cron("*/25 59 23 * * *", "UTC"), "2026-01-01T23:59:10Z", 3),
        ["2026-01-01T23:59:25Z", "2026-01-01T23:59:50Z", "2026-01-02T23:59:00Z"]
    );
}

/// Expression, and a part of what is said about it.
#[rustfmt::skip]
const REFUSED: &[(&str, &str)] = &[
    ("", "has 0 fields"),
    ("* * *", "has 3 fields, and a cron expression has five"),
    ("* * * * * * 2027", "there are none for years"),
    ("CRON_TZ=UTC 0 0 * * *", "the time zone is `timezone`"),
    ("TZ=UTC 0 0 0 * * *", "the time zone is `timezone`"),
    ("61 * * * *", "the minute `61` has `61` where a number from 0 to 59 is needed"),
    ("* 24 * * *", "the hour `24` has `24` where a number from 0 to 23"),
    ("* * 0 * *", "the day of the month `0`"),
    ("* * 32 * *", "where a number from 1 to 31"),
    ("* * * 13 *", "where a number from 1 to 12 or JAN to DEC"),
    ("* * * * 8", "where a number from 0 to 7 or SUN to SAT"),
    ("60 * * * * *", "the second `60`"),
    ("-5 * * * *", "the minute `-5`"),
    ("+5 * * * *", "the minute `+5`"),
    ("5- * * * *", "the minute `5-`"),
    ("1-2-3 * * * *", "the minute `1-2-3`"),
    ("1,,2 * * * *", "an empty place in its list"),
    (", * * * *", "an empty place in its list"),
    ("*/0 * * * *", "the step `0`"),
    ("*/ * * * *", "the step ``"),
    ("*/x * * * *", "the step `X`"),
    ("*/5/5 * * * *", "the step `5/5`"),
    ("5/10 * * * *", "write `5-59/10`"),
    ("/10 * * * *", "the minute `/10`"),
    ("1.5 * * * *", "the minute `1.5`"),
    ("٣ * * * *", "the minute `٣`"),
    ("? * * * *", "the minute `?`"),
    ("* * * ? *", "the month `?`"),
    ("* * MON * *", "the day of the month `MON`"),
    ("* * * * MONDAY", "the day of the week `MONDAY`"),
    ("* * * * JAN", "the day of the week `JAN`"),
    ("L * * * *", "which only days have"),
    ("* * L-3 * *", "write `L` for the last day"),
    ("* * W * *", "write `L` for the last day"),
    ("* * 32W * *", "where a number from 1 to 31"),
    ("* * 1-5W * *", "write `L` for the last day"),
    ("* * * * L", "write `FRIL` for the last Friday"),
    ("* * * * 5W", "the day of the week `5W`"),
    ("* * * * FRI#6", "a month has 1 to 5"),
    ("* * * * FRI#0", "a month has 1 to 5"),
    ("* * * * MON-FRI#2", "write `FRIL` for the last Friday"),
    ("@reboot", "`@reboot` is none"),
    ("@fortnightly", "@hourly, @daily"),
    ("@", "@hourly, @daily"),
    ("H * * * *", "is drawn from the name of the job"),
];

#[test]
fn what_is_no_expression_is_refused_with_what_is_wrong() {
    for (expression, part) in REFUSED {
        let (key, message) = refused(&cron(expression, "UTC"));
        assert_eq!(key, Some("cron"));
        assert!(message.contains(part), "{expression}: {message}");
    }
}

#[test]
fn what_can_never_fire_is_refused() {
    for expression in
        ["0 0 30 2 *", "0 0 30,31 2 ?", "0 0 31 4,6,9,11 *", "0 0 31W 2 *", "0 0 31 2 */2", "0 0 0 30 FEB *"]
    {
        let (key, message) = refused(&cron(expression, "UTC"));
        let expected = format!("`{expression}` never fires: no date matches it");
        assert_eq!((key, message), (Some("cron"), expected));
    }
    // The fifth Sunday of February, in a leap year that begins on a Thursday.
    assert_eq!(
        fires(&cron("0 0 * 2 SUN#5", "UTC"), "2026-01-01T00:00:00Z", 2),
        ["2032-02-29T00:00:00Z", "2060-02-29T00:00:00Z"]
    );
}

#[test]
fn leap_days_are_found_until_2100_and_after_it() {
    let schedule = made(&cron("0 0 29 2 *", "Europe/Berlin"));
    let mut years = Vec::new();
    let mut time: Timestamp = "2024-01-01T00:00:00Z".parse().unwrap();
    while years.last() != Some(&2108) {
        time = schedule.next_after(time).unwrap();
        years.push(time.to_zoned(schedule.zone().clone()).year());
    }
    let expected: Vec<i16> = (2024..=2108).step_by(4).filter(|year| *year != 2100).collect();
    assert_eq!(years, expected);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[ 0-9*/,?LWH#()@A-Z-]{0,30}", more in ".{0,20}") {
        for text in [text, more] {
            let spec = super::Spec { name: Some("job".into()), ..cron(&text, "UTC") };
            if let Ok(schedule) = Schedule::new(&spec) {
                prop_assert!(schedule.next_after(Timestamp::UNIX_EPOCH).is_some(), "{text}");
            }
        }
    }

    /// The library that reads the fields is also a second opinion on whole expressions.
    #[test]
    fn dates_are_those_of_croner(
        of_month in "(\\*|\\*/[2-9]|[12][0-9]|[1-9]-1[0-9]|L|LW|[12][0-9]W|[1-9],L)",
        month in "(\\*|[1-9]|\\*/2|3-7)",
        of_week in "(\\*|\\*/2|[0-7]|1-5|[0-7]#[1-4]|[0-7]L|0,3)",
        days in 0i32..60_000,
    ) {
        let text = format!("0 0 {of_month} {month} {of_week}");
        // Croner has no star bit: both must match where a step is in one of the fields.
        let both = of_month.starts_with("*/") || of_week.starts_with("*/");
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed);
        let oracle = parser.dom_and_dow(both).build().parse(&text).unwrap();
        let read = expression::read(&text, None);
        let first = Date::constant(1990, 1, 1).saturating_add(days.days());
        for date in first.series(1.day()).take(40) {
            let weekday = (date.weekday().to_sunday_zero_offset() as u32) % 7;
            let weekday = croner::Weekday::from_days_from_sunday(weekday);
            let (year, month, day) = (date.year().into(), date.month() as u32, date.day() as u32);
            let expected = oracle.pattern.month_match(month).unwrap()
                && oracle.pattern.day_match(year, month, day, weekday).unwrap();
            match &read {
                Ok(read) => prop_assert_eq!(read.pattern.has_date(date), expected, "{} on {}", text, date),
                Err(_) => prop_assert!(!expected, "{} was refused", text),
            }
        }
    }
}
