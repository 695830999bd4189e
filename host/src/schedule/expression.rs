//! Reads cron expressions.
//!
//! What an operator may write is brought into the form of numbers, ranges and steps, which croner
//! reads, field by field; croner also knows which days `L`, `W` and `#` mean. Names, ranges that
//! wrap around, `H`, nicknames and which of two day fields counts are decided here.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use croner::errors::CronError;
use croner::{CronComponent, CronPattern, Weekday};

use jiff::civil::Date;

use super::ScheduleError;
use super::pattern::{DayRule, MONTHS, Pattern, Special};
use field::{FIELDS, Field};

mod field;

/// A cron expression that was read.
pub(super) struct Read {
    pub(super) pattern: Pattern,
    /// It has an `H`, so that it depends on the job's name.
    pub(super) hashed: bool,
    /// The six fields as numbers, seconds first.
    pub(super) fields: [String; 6],
}

/// A field in the form that croner reads.
#[derive(Default)]
struct Plain {
    text: String,
    /// Parts with `L`, `W` or `#`, each alone.
    special: Vec<String>,
    /// It begins with `*`, or is `?`.
    star: bool,
    /// It is or begins with `*`, `*/n`, or is `H/n`.
    wildcard: bool,
    hashed: bool,
}

/// Reads an expression; `H` in it is drawn from the name.
pub(super) fn read(expression: &str, name: Option<&str>) -> Result<Read, ScheduleError> {
    let wrong =
        |why: String| ScheduleError::new("cron", format!("`{expression}` is not a cron expression: {why}"));
    let written = expression.trim().to_ascii_uppercase();
    let written =
        if written.starts_with('@') { nickname(&written).map_err(wrong)?.to_owned() } else { written };
    let texts: Vec<&str> = written.split_whitespace().collect();
    let first = match texts.len() {
        _ if written.contains('=') => {
            return Err(wrong("the time zone is `timezone`, a key of its own".to_owned()));
        }
        5 => 1,
        6 => 0,
        count => return Err(ScheduleError::new("cron", wrong_count(expression, count))),
    };
    let mut plain: [Plain; 6] = Default::default();
    plain[0].text = "0".to_owned();
    for ((field, text), plain) in FIELDS[first..].iter().zip(texts).zip(&mut plain[first..]) {
        *plain =
            field.plain(text, name).map_err(|why| wrong(format!("the {} `{text}` {why}", field.label)))?;
    }
    let mut sets = [0u64; 6];
    for ((field, plain), set) in FIELDS.iter().zip(&plain).zip(&mut sets) {
        *set = values(field, &plain.text)
            .map_err(|why| wrong(format!("the {} `{}` is not valid: {why}", field.label, plain.text)))?;
    }
    let special = special(&plain[3].special, &plain[5].special).map_err(wrong)?;
    let pattern = pattern(sets, &plain, special);
    if pattern.next_date(Date::constant(2000, 1, 1)).is_none() {
        return Err(ScheduleError::new("cron", format!("`{expression}` never fires: no date matches it")));
    }
    let hashed = plain.iter().any(|plain| plain.hashed);
    Ok(Read { pattern, hashed, fields: plain.map(Plain::into_text) })
}

impl Plain {
    fn into_text(self) -> String {
        let parts: Vec<String> =
            (!self.text.is_empty()).then_some(self.text).into_iter().chain(self.special).collect();
        parts.join(",")
    }
}

fn pattern(sets: [u64; 6], plain: &[Plain; 6], special: Option<Box<Special>>) -> Pattern {
    let [seconds, minutes, hours, of_month, months, of_week] = sets;
    // No value is above 59 and, but for seconds and minutes, above 31, as the ranges say.
    let narrow = |set: u64| u32::try_from(set).unwrap_or(u32::MAX);
    // 7 is Sunday as well.
    let of_week = (of_week | of_week >> 7) & 0x7f;
    Pattern {
        seconds,
        minutes,
        hours: narrow(hours),
        months: u16::try_from(months).unwrap_or(u16::MAX),
        days: DayRule {
            of_month: narrow(of_month),
            of_week: u8::try_from(of_week).unwrap_or(u8::MAX),
            both: plain[3].star || plain[5].star,
            special,
        },
        daily: !plain[1].wildcard && !plain[2].wildcard,
    }
}

/// The values that croner reads in a field, bit `n` for value `n`.
fn values(field: &Field, text: &str) -> Result<u64, String> {
    let mut component = CronComponent::new(field.min, field.max, 0, 0);
    component.parse(text).map_err(|error| error.to_string())?;
    Ok(component.values().into_iter().fold(0, |set, value| set | 1 << value))
}

/// Asks croner which days are meant, in every kind of month.
fn special(of_month: &[String], of_week: &[String]) -> Result<Option<Box<Special>>, String> {
    if of_month.is_empty() && of_week.is_empty() {
        return Ok(None);
    }
    let mut special = Box::new(Special { of_month: [0; MONTHS], of_week: [0; MONTHS] });
    for (parts, days, label) in
        [(of_month, &mut special.of_month, FIELDS[3].label), (of_week, &mut special.of_week, FIELDS[5].label)]
    {
        for part in parts {
            let found = days_of(label, part)
                .map_err(|error| format!("the {label} `{part}` is not valid: {error}"))?;
            for (days, found) in days.iter_mut().zip(found) {
                *days |= found;
            }
        }
    }
    Ok(Some(special))
}

/// The days that a part means in each kind of month. Remembered, since it is asked about each day
/// of each: there are 75 parts in all, and there may be 100,000 jobs.
fn days_of(label: &'static str, part: &str) -> Result<[u32; MONTHS], CronError> {
    type Known = BTreeMap<(&'static str, String), [u32; MONTHS]>;
    static KNOWN: Mutex<Known> = Mutex::new(BTreeMap::new());
    let key = (label, part.to_owned());
    let known = |guard: &mut Known| guard.get(&key).copied();
    if let Some(days) = known(&mut KNOWN.lock().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(days);
    }
    let mut pattern = CronPattern::new("");
    match label == FIELDS[3].label {
        true => pattern.days.parse(part)?,
        false => pattern.days_of_week.parse(part)?,
    }
    // Any months with 28, 29, 30 and 31 days: croner takes the weekday from its caller.
    const LENGTHS: [(i32, u32, u32); 4] = [(2001, 2, 28), (2000, 2, 29), (2001, 4, 30), (2001, 1, 31)];
    let mut months = [0; MONTHS];
    for (days, (kind, weekday)) in
        months.iter_mut().zip((0..4).flat_map(|kind| (0..7).map(move |day| (kind, day))))
    {
        let (year, month, length) = LENGTHS[kind];
        for day in 1..=length {
            let weekday = Weekday::from_days_from_sunday((weekday + day - 1) % 7);
            if pattern.day_match(year, month, day, weekday)? {
                *days |= 1 << day;
            }
        }
    }
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(key, months);
    Ok(months)
}

fn nickname(text: &str) -> Result<&'static str, String> {
    Ok(match text {
        "@HOURLY" => "0 * * * *",
        "@DAILY" | "@MIDNIGHT" => "0 0 * * *",
        "@WEEKLY" => "0 0 * * 0",
        "@MONTHLY" => "0 0 1 * *",
        "@YEARLY" | "@ANNUALLY" => "0 0 1 1 *",
        "@REBOOT" => {
            return Err(
                "a job fires at times, and `@reboot` is none: use `every_after`, or run the job with \
                        `innkeeper job run` when the machine has started"
                    .to_owned(),
            );
        }
        _ => {
            return Err("the short forms are @hourly, @daily (or @midnight), @weekly, @monthly and @yearly \
                        (or @annually)"
                .to_owned());
        }
    })
}

fn wrong_count(expression: &str, count: usize) -> String {
    let fields = "minute, hour, day of month, month, day of week, as in `30 2 * * *`";
    let more = match count {
        7 => "; there are none for years: use `not_before` and `not_after`",
        _ => "",
    };
    let s = if count == 1 { "" } else { "s" };
    format!(
        "`{expression}` has {count} field{s}, and a cron expression has five: {fields}; or six with seconds \
         first{more}"
    )
}
