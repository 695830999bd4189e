//! What schedules must do. Each file is about one part of it.

use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::ProptestConfig;

use super::{Schedule, Spec};

mod bounds;
mod brute_force;
mod calendars;
mod errors;
mod explained;
mod intervals;
mod patterns;
mod properties;
mod spread;
mod stored;
mod zones;

fn cron(expression: &str, zone: &str) -> Spec {
    Spec { cron: Some(expression.into()), timezone: Some(zone.into()), ..Spec::default() }
}

fn every(seconds: u64) -> Spec {
    Spec { every: Some(Duration::from_secs(seconds)), ..Spec::default() }
}

fn at(text: &str, zone: &str) -> Spec {
    Spec { at: Some(text.into()), timezone: Some(zone.into()), ..Spec::default() }
}

fn made(spec: &Spec) -> Schedule {
    Schedule::new(spec).unwrap_or_else(|error| panic!("{spec:?}: {error}"))
}

/// So many cases, unless `PROPTEST_CASES` says otherwise.
fn cases(usual: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { usual };
    ProptestConfig { cases, ..config }
}

/// The key that is wrong, and the message.
fn refused(spec: &Spec) -> (Option<&'static str>, String) {
    let error = Schedule::new(spec).map(|schedule| schedule.to_string()).unwrap_err();
    (error.key, error.message)
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Times of UTC to the minute, with spaces between them.
fn times(text: &str) -> Vec<Timestamp> {
    text.split_whitespace().map(|text| time(&format!("{text}:00Z"))).collect()
}

/// So many fires after a time, or as many as there are.
fn fires(spec: &Spec, after: &str, count: usize) -> Vec<String> {
    let schedule = made(spec);
    let mut fires = Vec::new();
    let mut after = time(after);
    while fires.len() < count {
        let Some(next) = schedule.next_after(after) else { break };
        fires.push(next.to_string());
        after = next;
    }
    fires
}
