//! From an instant to the next fire, and from what an operator wrote to a schedule.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use innkeeper::schedule::{Schedule, Spec};
use jiff::Timestamp;

use crate::Selection;
use crate::figure::{Figure, Goal, Report};
use crate::rounds::{quantile, sorted};

/// What the next fire of a usual schedule may cost, in nanoseconds.
const LIMIT: f64 = 2_000.0;

const CALLS: i64 = 200_000;

const ROUNDS: usize = 11;

/// Schedules of a large installation.
const MANY: usize = 100_000;

/// What most jobs are like: the name of the figure, the expression, the zone.
const USUAL: [(&str, &str, &str); 5] = [
    ("next_usual_daily", "30 2 * * *", "Europe/Berlin"),
    ("next_usual_minutes", "*/5 * * * *", "UTC"),
    ("next_usual_minutes_berlin", "*/5 * * * *", "Europe/Berlin"),
    ("next_usual_weekly", "0 8 * * MON", "America/New_York"),
    ("next_usual_monthly", "0 6 L * *", "Asia/Tokyo"),
];

/// Measures what is selected. `next_usual` is the slowest of the usual ones.
pub(super) fn measure(selection: &Selection, report: &mut Report) {
    let mut slowest: Option<f64> = None;
    for (name, expression, zone) in USUAL {
        if !selection.wants(name) && !selection.wants("next_usual") {
            continue;
        }
        let nanos = nanos_per_call(expression, zone, selection);
        if let Ok(nanos) = nanos {
            slowest = Some(slowest.map_or(nanos, |slowest| slowest.max(nanos)));
        }
        report.add(name, nanos.map(|nanos| Figure::alone(name, nanos, "ns")));
    }
    if selection.wants("next_usual") {
        let usual = slowest.context("none of them could be measured").map(|nanos| Figure {
            against: Some("2 us"),
            ratio: Some(nanos / LIMIT),
            goal: Some(Goal::AtMost(1.0)),
            ..Figure::alone("next_usual", nanos, "ns")
        });
        report.add("next_usual", usual);
    }
    if selection.wants("new_100k") {
        report.add("new_100k", made(selection).map(|millis| Figure::alone("new_100k", millis, "ms")));
    }
}

/// The median of some rounds. Each call asks from another instant: somewhere in a year.
fn nanos_per_call(expression: &str, zone: &str, selection: &Selection) -> Result<f64> {
    let schedule = Schedule::new(&cron(expression, zone))?;
    let start = Timestamp::constant(1_790_000_000, 0);
    let instants: Vec<Timestamp> = (0..CALLS)
        .map(|n| start.checked_add(Duration::from_secs(n.unsigned_abs() * 157)))
        .collect::<Result<_, _>>()?;
    let rounds = (0..selection.rounds(ROUNDS)).map(|_| {
        let began = Instant::now();
        for instant in &instants {
            black_box(black_box(&schedule).next_after(*instant));
        }
        nanos(began.elapsed()) / nanos(Duration::from_nanos(CALLS.unsigned_abs()))
    });
    Ok(quantile(&sorted(rounds), 0.5))
}

/// Milliseconds for as many schedules as a large installation has, all of different minutes.
fn made(selection: &Selection) -> Result<f64> {
    let mut rounds = Vec::new();
    for _ in 0..selection.rounds(3) {
        let specs: Vec<Spec> =
            (0..MANY).map(|n| cron(&format!("{} {} * * *", n % 60, n / 60 % 24), "Europe/Berlin")).collect();
        let began = Instant::now();
        for spec in &specs {
            black_box(Schedule::new(black_box(spec))?);
        }
        rounds.push(nanos(began.elapsed()) / 1e6);
    }
    Ok(quantile(&sorted(rounds.into_iter()), 0.5))
}

fn cron(expression: &str, zone: &str) -> Spec {
    Spec { cron: Some(expression.to_owned()), timezone: Some(zone.to_owned()), ..Spec::default() }
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}
