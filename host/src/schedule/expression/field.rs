//! One field of a cron expression, from what may be written to numbers, ranges and steps.

use super::Plain;
use crate::schedule::draw;

/// What a field may say.
pub(super) struct Field {
    /// Its name in messages.
    pub(super) label: &'static str,
    pub(super) min: u16,
    pub(super) max: u16,
    names: &'static [&'static str],
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Time,
    DayOfMonth,
    Month,
    DayOfWeek,
}

/// Seconds, minutes, hours, days of the month, months, days of the week.
pub(super) const FIELDS: [Field; 6] = [
    Field { label: "second", min: 0, max: 59, names: &[], kind: Kind::Time },
    Field { label: "minute", min: 0, max: 59, names: &[], kind: Kind::Time },
    Field { label: "hour", min: 0, max: 23, names: &[], kind: Kind::Time },
    Field { label: "day of the month", min: 1, max: 31, names: &[], kind: Kind::DayOfMonth },
    Field {
        label: "month",
        min: 1,
        max: 12,
        names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
        kind: Kind::Month,
    },
    Field {
        label: "day of the week",
        min: 0,
        max: 7,
        names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
        kind: Kind::DayOfWeek,
    },
];

impl Field {
    /// Rewrites a field. The text is in upper case. Errors go on after "the minute `…`".
    pub(super) fn plain(&self, text: &str, name: Option<&str>) -> Result<Plain, String> {
        let mut plain = Plain::default();
        let day = matches!(self.kind, Kind::DayOfMonth | Kind::DayOfWeek);
        if text == "?" && day {
            return Ok(Plain { text: "*".to_owned(), star: true, wildcard: true, ..plain });
        }
        plain.star = text.starts_with('*');
        plain.wildcard = plain.star;
        let mut parts = Vec::new();
        for part in text.split(',') {
            if part.is_empty() {
                return Err("has an empty place in its list".to_owned());
            }
            if let Some(rest) = part.strip_prefix('H') {
                parts.push(self.hashed(rest, name)?);
                plain.hashed = true;
                plain.wildcard |= rest.starts_with('/');
            } else if let Some(special) = self.special(part)? {
                plain.special.push(special);
            } else {
                self.ordinary(part, text.contains(','), &mut parts)?;
            }
        }
        plain.text = parts.join(",");
        Ok(plain)
    }

    /// `*`, numbers and names, ranges, steps; of `many` parts or alone.
    fn ordinary(&self, part: &str, many: bool, parts: &mut Vec<String>) -> Result<(), String> {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => (range, Some(self.step(step)?)),
        };
        let with_step = |range: String| match step {
            None => range,
            Some(step) => format!("{range}/{step}"),
        };
        if range == "*" {
            // Croner takes it alone only, or with a step.
            let all =
                if step.is_none() && many { format!("{}-{}", self.min, self.last()) } else { "*".to_owned() };
            parts.push(with_step(all));
            return Ok(());
        }
        let Some((from, to)) = range.split_once('-') else {
            let value = self.value(range)?;
            if let Some(step) = step {
                let last = self.last();
                return Err(format!(
                    "has a step without a range: write `{value}-{last}/{step}`, or `*/{step}`"
                ));
            }
            parts.push(value.to_string());
            return Ok(());
        };
        let (from, to) = (self.value(from)?, self.value(to)?);
        // Sunday is both 0 and 7: it begins a range as 0, and ends one as 7.
        let from = if self.kind == Kind::DayOfWeek && from == 7 && to != 7 { 0 } else { from };
        if from <= to {
            parts.push(with_step(format!("{from}-{to}")));
            return Ok(());
        }
        // Around the end, in steps that go on over it.
        let count = self.last() - self.min + 1;
        let length = to + count - from;
        let step = step.unwrap_or(1);
        let around = (0..=length).step_by(step.into()).map(|n| (from - self.min + n) % count + self.min);
        parts.extend(around.map(|value| value.to_string()));
        Ok(())
    }

    /// What comes after an `H`: nothing, `/n`, `(a-b)` or `(a-b)/n`.
    fn hashed(&self, rest: &str, name: Option<&str>) -> Result<String, String> {
        let name = name.ok_or(
            "has an `H`, which is drawn from the name of the job, and here is none: write a number instead",
        )?;
        let wrong = || "is not a form of `H`: write `H`, `H/15`, `H(0-29)` or `H(0-29)/10`".to_owned();
        let (range, rest) = match rest.strip_prefix('(') {
            None => (None, rest),
            Some(rest) => {
                let (range, rest) = rest.split_once(')').ok_or_else(wrong)?;
                (Some(range.split_once('-').ok_or_else(wrong)?), rest)
            }
        };
        let (min, max) = match range {
            // Every month has a 28th.
            None if self.kind == Kind::DayOfMonth => (1, 28),
            None => (self.min, self.last()),
            Some((min, max)) => (self.value(min)?, self.value(max)?),
        };
        if min > max {
            return Err(format!("has a range that ends before it begins, `{min}-{max}`"));
        }
        let drawn = draw::draw(&[name.as_bytes(), self.label.as_bytes()]);
        let pick = |count: u16| u16::try_from(draw::scale(drawn, count.into())).unwrap_or(0);
        match rest.strip_prefix('/') {
            None if rest.is_empty() => Ok((min + pick(max - min + 1)).to_string()),
            None => Err(wrong()),
            Some(step) => {
                let step = self.step(step)?;
                let first = min + pick(step.min(max - min + 1));
                Ok(format!("{first}-{max}/{step}"))
            }
        }
    }

    /// A part with `L`, `W` or `#`, as croner reads it; none where it has none of them.
    fn special(&self, part: &str) -> Result<Option<String>, String> {
        if self.names.contains(&part) || !part.contains(['L', 'W', '#']) {
            return Ok(None);
        }
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
        match self.kind {
            Kind::DayOfMonth => match part {
                "L" | "LW" => Ok(Some(part.to_owned())),
                "WL" => Ok(Some("LW".to_owned())),
                _ => match part.strip_suffix('W') {
                    Some(day) if number(day) => Ok(Some(format!("{}W", self.value(day)?))),
                    _ => {
                        Err("is not a form of `L` or `W`: write `L` for the last day, `LW` for the last day \
                              from Monday to Friday, `15W` for such a day nearest to the 15th"
                            .to_owned())
                    }
                },
            },
            Kind::DayOfWeek => {
                let wrong = || {
                    "is not a form of `L` or `#`: write `FRIL` for the last Friday of the month, `FRI#2` for \
                     the second"
                        .to_owned()
                };
                // A name before a range of names has no `L` at its end.
                if let Some(day) = part.strip_suffix("#L").or_else(|| part.strip_suffix('L')) {
                    return match self.value(day) {
                        Ok(day) => Ok(Some(format!("{}L", day % 7))),
                        Err(_) => Err(wrong()),
                    };
                }
                if let Some((day, nth)) = part.split_once('#') {
                    let day = self.value(day).map_err(|_| wrong())?;
                    return match nth {
                        "1" | "2" | "3" | "4" | "5" => Ok(Some(format!("{}#{nth}", day % 7))),
                        _ => Err(format!("asks for number `{nth}` of a weekday; a month has 1 to 5")),
                    };
                }
                // Such as `WED-FRI`.
                Ok(None)
            }
            // Such as `JUL-SEP`.
            Kind::Month => Ok(None),
            Kind::Time => Err("has `L`, `W` or `#`, which only days have".to_owned()),
        }
    }

    fn step(&self, text: &str) -> Result<u16, String> {
        match text.parse::<u16>() {
            Ok(step) if step > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(step),
            _ => Err(format!("has the step `{text}`, which is not a number from 1 on")),
        }
    }

    fn value(&self, text: &str) -> Result<u16, String> {
        if let Some(at) = self.names.iter().position(|name| *name == text) {
            return Ok(self.min + u16::try_from(at).unwrap_or(0));
        }
        let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
        let value = text.parse::<u16>().ok().filter(|_| digits);
        value.filter(|value| (self.min..=self.max).contains(value)).ok_or_else(|| {
            let names = match self.names {
                [] => String::new(),
                [first, .., last] => format!(" or {first} to {last}"),
                [only] => format!(" or {only}"),
            };
            let names = if self.kind == Kind::DayOfWeek { " or SUN to SAT".to_owned() } else { names };
            format!("has `{text}` where a number from {} to {}{names} is needed", self.min, self.max)
        })
    }

    /// The highest value; Sunday is 0.
    fn last(&self) -> u16 {
        if self.kind == Kind::DayOfWeek { 6 } else { self.max }
    }
}
