//! What is printed in the end.

use std::fmt;
use std::time::Duration;

use super::flatness::{median, most};
use super::gauge::{Gauge, Sample};
use crate::database::Engine;

/// What was read, and whether it grows.
#[derive(Debug)]
pub struct Report {
    engine: Engine,
    took: Duration,
    executions: u64,
    samples: usize,
    lines: Vec<Line>,
}

/// One gauge in thirds of the time.
#[derive(Debug)]
struct Line {
    gauge: Gauge,
    medians: [u64; 3],
    most: u64,
    allowed: Option<u64>,
}

impl Line {
    fn grows(&self) -> bool {
        self.allowed.is_some_and(|allowed| self.medians[2] > allowed)
    }
}

impl Report {
    pub(super) fn new(engine: Engine, took: Duration, samples: Vec<Sample>) -> Self {
        let lines = Gauge::ALL.into_iter().filter_map(|gauge| {
            let values = samples.iter().filter_map(|sample| sample.of(gauge)).collect::<Vec<_>>();
            line(gauge, &values)
        });
        let lines = lines.collect();
        let executions = samples.last().map_or(0, |sample| sample.executions);
        Self { engine, took, executions, samples: samples.len(), lines }
    }

    /// Whether nothing grows.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        !self.lines.is_empty() && !self.lines.iter().any(Line::grows)
    }
}

/// None where there is nothing to compare, as of a write-ahead log on PostgreSQL.
fn line(gauge: Gauge, values: &[u64]) -> Option<Line> {
    let third = values.len() / 3;
    let (first, rest) = values.split_at_checked(third).filter(|_| third > 0)?;
    let (second, last) = rest.split_at(third);
    let medians = [median(first), median(second), median(last)];
    Some(Line { gauge, medians, most: most(values), allowed: gauge.allowed(second) })
}

/// Markdown, for `docs/reliability.md`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.took.as_secs() / 60;
        let Self { executions, samples, .. } = self;
        writeln!(
            f,
            "{}: {minutes} minutes, {executions} executions, {samples} samples\n",
            name(self.engine)
        )?;
        writeln!(
            f,
            "| median of the | first third | second third | last third | may be | the most of all |"
        )?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|")?;
        for Line { gauge, medians, most, allowed } in &self.lines {
            let [first, second, last] = medians.map(|value| gauge.show(value));
            let allowed = allowed.map_or_else(|| "any".to_owned(), |value| gauge.show(value));
            writeln!(
                f,
                "| {} | {first} | {second} | {last} | {allowed} | {} |",
                gauge.title(),
                gauge.show(*most)
            )?;
        }
        writeln!(f)?;
        for line in self.lines.iter().filter(|line| line.grows()) {
            let titles = (line.gauge.title(), line.gauge.show(line.medians[2]));
            writeln!(
                f,
                "GROWS: {} is {} in the last third, which is more than it may be",
                titles.0, titles.1
            )?;
        }
        if self.is_flat() { writeln!(f, "Nothing grows.") } else { Ok(()) }
    }
}

/// The engine, as it is printed.
pub(super) fn name(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "SQLite",
        Engine::Postgres => "PostgreSQL",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_may_rise_while_it_warms_up_and_five_percent_after_that() {
        let grows = |values: &[u64]| line(Gauge::Resident, values).expect("there is enough").grows();
        assert!(!grows(&[10, 50, 90, 100, 100, 100, 104, 105, 400]));
        assert!(grows(&[10, 50, 90, 100, 100, 100, 106, 106, 100]));
        assert!(line(Gauge::Resident, &[1, 2]).is_none());
    }

    #[test]
    fn open_files_may_come_and_go_and_never_stay() {
        let grows = |values: &[u64]| line(Gauge::Files, values).expect("there is enough").grows();
        assert!(!grows(&[20, 20, 20, 20, 24, 20, 24, 20, 24]));
        assert!(grows(&[20, 20, 20, 20, 21, 21, 22, 22, 22]));
    }
}
