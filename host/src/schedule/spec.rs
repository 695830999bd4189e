//! A schedule as it is written in the configuration and kept in the store.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::calendar::Calendar;

/// A schedule as it is written and kept: exactly one of the first four is given.
///
/// What has its default is left out where it is kept, so that the definition of a job stays the
/// same text when keys are added here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// Five fields of cron: minute, hour, day of month, month, day of week; six with seconds first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// A distance of elapsed time, counted from `anchor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
    /// A distance of elapsed time, counted from the end of the last execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every_after: Option<Duration>,
    /// A date and time, RFC 3339, or without an offset in the schedule's zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The IANA name of a time zone; UTC where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// A time of the multiples of `every`, written as `at` is; 1970-01-01T00:00:00Z where it is
    /// left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor: Option<String>,
    /// How much later than its time a fire of `cron` or `every` may be, drawn for each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Duration>,
    /// What happens to a time of day that a clock change leaves out.
    #[serde(skip_serializing_if = "is_default")]
    pub gap: Gap,
    /// What happens to a time of day that a clock change repeats.
    #[serde(skip_serializing_if = "is_default")]
    pub overlap: Overlap,
    /// Nothing fires before this, written as `at` is, or a date for its first instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// Nothing fires after this, written as `at` is, or a date for its last instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// Calendars that must all allow a day, with all that they say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calendars: Vec<Calendar>,
    /// What happens to a fire on a day that a calendar does not allow.
    #[serde(skip_serializing_if = "is_default")]
    pub when_excluded: WhenExcluded,
    /// The name of the job, from which `H` and `jitter` are drawn. Not kept where neither is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What happens to a time of day that a clock change leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gap {
    /// It fires at the first instant after the gap.
    #[default]
    RunAfter,
    /// It does not fire.
    Skip,
}

/// What happens to a time of day that a clock change repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// It fires the first time.
    #[default]
    First,
    /// It fires the last time.
    Last,
    /// It fires both times.
    Both,
}

/// What happens to a fire on a day that a calendar does not allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenExcluded {
    /// It is left out.
    #[default]
    Skip,
    /// It is moved to the same time of the next allowed day, where it is one with what fires then.
    NextDay,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
