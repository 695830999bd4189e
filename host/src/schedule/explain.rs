//! What a schedule means, in plain English.

use std::time::Duration;

use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::civil::Time;

use super::pattern::Pattern;
use super::spec::{Gap, Overlap, WhenExcluded};
use super::{Schedule, Timing, expression, wall};
use crate::calendar::{Calendar, Weekday};

/// So many times of day are listed one by one.
const MOST_TIMES: u32 = 6;

impl Schedule {
    /// What it means, in sentences of plain English: when it runs, in which time zone, what
    /// happens on changes of the clock, and what calendars, jitter and bounds do.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        match &self.timing {
            Timing::Cron(pattern) => self.explain_cron(pattern, &mut sentences),
            Timing::Every(interval) => {
                let period = Duration::from_micros(interval.period.unsigned_abs());
                let anchor = Timestamp::from_microsecond(interval.anchor).unwrap_or(Timestamp::UNIX_EPOCH);
                let period = humantime::format_duration(period);
                sentences.push(format!("Runs every {period}, counted from {anchor}, however long it takes."));
                sentences.push("It counts elapsed time: changes of the clock do not matter.".to_owned());
            }
            Timing::EveryAfter(period) => {
                let period = humantime::format_duration(*period);
                sentences.push(format!("Runs {period} after the end of its last execution."));
                sentences.push("It counts elapsed time: changes of the clock do not matter.".to_owned());
            }
            Timing::At(first, again) => {
                let mut times = self.local(*first);
                if let Some(again) = again {
                    times = format!("{times} and {}", self.local(*again));
                }
                sentences.push(format!("Runs once, at {times}."));
                if again.is_some() {
                    sentences.push("The clock shows that time twice, and it runs both times.".to_owned());
                }
            }
        }
        self.explain_calendars(&mut sentences);
        if self.jitter > 0 {
            let jitter = Duration::from_micros(self.jitter.unsigned_abs());
            sentences.push(format!(
                "Each time is up to {} later, drawn from the name of the job and that time, so that every host \
                 draws the same.",
                humantime::format_duration(jitter)
            ));
        }
        if let Some(first) = self.not_before {
            sentences.push(format!("It does not run before {}.", self.local(first)));
        }
        if let Some(last) = self.not_after {
            sentences.push(format!("It does not run after {}.", self.local(last)));
        }
        sentences
    }

    fn explain_cron(&self, pattern: &Pattern, sentences: &mut Vec<String>) {
        let expression = self.spec.cron.as_deref().unwrap_or_default();
        // It was read before.
        let Ok(read) = expression::read(expression, self.spec.name.as_deref()) else { return };
        let zone = self.zone.iana_name().unwrap_or("UTC");
        let when = when(pattern, &read.fields).unwrap_or_else(|| format!("at {expression}"));
        sentences.push(format!("Runs {when}, on the clock of {zone}."));
        if read.hashed {
            let fields = read.fields.join(" ");
            let fields = fields.strip_prefix("0 ").filter(|_| expression.split_whitespace().count() == 5);
            sentences.push(format!(
                "`H` is drawn from the name of the job, `{}`: for it, the expression is `{}`.",
                self.spec.name.as_deref().unwrap_or_default(),
                fields.unwrap_or(&read.fields.join(" "))
            ));
        }
        sentences.extend(rule_of_days(&read.fields, pattern.days.both).map(str::to_owned));
        sentences.push(self.rule_of_changes(pattern));
    }

    fn rule_of_changes(&self, pattern: &Pattern) -> String {
        if wall::next_change(&self.zone, Timestamp::UNIX_EPOCH).is_none() {
            return "That clock never goes forward or back.".to_owned();
        }
        if !pattern.daily {
            return "When that clock goes back, it runs in both of the repeated hours, and when it goes forward, \
                    nothing runs for the times that are left out: its minute or hour is a wildcard."
                .to_owned();
        }
        let gap = match self.spec.gap {
            Gap::RunAfter => "it runs at the first moment after the gap",
            Gap::Skip => "it does not run that day",
        };
        let overlap = match self.spec.overlap {
            Overlap::First => "the first time only",
            Overlap::Last => "the second time only",
            Overlap::Both => "both times",
        };
        format!(
            "When that clock goes forward and leaves out its time, {gap}; when it goes back and shows its time \
             twice, it runs {overlap}."
        )
    }

    fn explain_calendars(&self, sentences: &mut Vec<String>) {
        if self.spec.calendars.is_empty() {
            return;
        }
        for calendar in &self.spec.calendars {
            sentences.push(format!("Calendar `{}` allows {}.", calendar.name, allowed(calendar)));
        }
        let what = match (&self.timing, self.spec.when_excluded) {
            (Timing::EveryAfter(_), WhenExcluded::Skip) => "waits for the start of the next allowed day",
            (_, WhenExcluded::Skip) => "is left out",
            (_, WhenExcluded::NextDay) => "moves to the same time of the next allowed day",
        };
        sentences.push(format!("What falls on another day {what}."));
    }

    fn local(&self, time: Timestamp) -> String {
        let zone = self.zone.iana_name().unwrap_or("UTC");
        format!("{} {zone}", time.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.f%:z"))
    }
}

/// Such as "at 02:30, on Monday".
fn when(pattern: &Pattern, fields: &[String; 6]) -> Option<String> {
    let [second, minute, hour, of_month, month, of_week] = fields;
    let describe = |fields: &str| {
        let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed);
        let cron = parser.dom_and_dow(pattern.days.both).build().parse(fields).ok()?;
        Some(cron.describe().trim_end_matches('.').to_owned())
    };
    let times = match times(pattern) {
        Some(times) => times,
        None => {
            let text = describe(&format!("{second} {minute} {hour} * * *"))?;
            text.replacen("At every", "every", 1).replacen("At ", "at ", 1).replacen("Every", "every", 1)
        }
    };
    let days = describe(&format!("0 0 0 {of_month} {month} {of_week}"))?;
    let days = days.strip_prefix("At 00:00")?;
    Some(format!("{times}{}", if days.is_empty() { ", every day" } else { days }))
}

/// The times of day, where there are few.
fn times(pattern: &Pattern) -> Option<String> {
    let count = pattern.seconds.count_ones() * pattern.minutes.count_ones() * pattern.hours.count_ones();
    if count > MOST_TIMES {
        return None;
    }
    let mut times = Vec::new();
    let mut from = Some(Time::midnight());
    while let Some(time) = from.and_then(|from| pattern.next_time(from)) {
        let format = if pattern.seconds == 1 { "%H:%M" } else { "%H:%M:%S" };
        times.push(time.strftime(format).to_string());
        from = time.checked_add(jiff::SignedDuration::from_secs(1)).ok();
    }
    Some(format!("at {}", list(&times)))
}

/// Whether both of the day fields must match, where that matters.
fn rule_of_days(fields: &[String; 6], both: bool) -> Option<&'static str> {
    match (fields[3].as_str(), fields[5].as_str()) {
        ("*", _) | (_, "*") => None,
        _ if both => Some(
            "A day must match both the day of the month and the day of the week, since one of these fields begins \
             with `*`.",
        ),
        _ => Some(
            "A day matches if its day of the month or its day of the week does: with both fields given, one is \
             enough.",
        ),
    }
}

fn allowed(calendar: &Calendar) -> String {
    let names = |days: &[Weekday]| {
        let mut days = days.to_vec();
        // A week begins on Monday.
        days.sort_by_key(|day| (day.from_sunday() + 6) % 7);
        list(&days.iter().map(|day| day.long_name().to_owned()).collect::<Vec<_>>())
    };
    let dates = |count: usize| if count == 1 { "one date".to_owned() } else { format!("{count} dates") };
    let mut but = Vec::new();
    if !calendar.exclude_weekdays.is_empty() {
        but.push(names(&calendar.exclude_weekdays));
    }
    match calendar.exclude.as_slice() {
        [] => {}
        [date] => but.push(date.to_string()),
        dates => but.push(format!("{} dates", dates.len())),
    }
    let but = if but.is_empty() { String::new() } else { format!(" but {}", but.join(" and ")) };
    let include = calendar.include.len();
    match (calendar.include_weekdays.is_empty(), include) {
        (true, 1..) if calendar.exclude_weekdays.is_empty() => format!("nothing but {}", dates(include)),
        (true, 0) => format!("all days{but}"),
        (true, _) => format!("all days{but}, and {} in any case", dates(include)),
        (false, 0) => format!("{}{but}", names(&calendar.include_weekdays)),
        (false, _) => {
            format!("{}{but}, and {} in any case", names(&calendar.include_weekdays), dates(include))
        }
    }
}

/// "a", "a and b", "a, b and c".
fn list(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
