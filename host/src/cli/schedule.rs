//! `innkeeper schedule …`

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::fires::{FireTime, Wanted, cut, fires, lines};
use super::period::When;
use super::{CliError, Global, Report};
use crate::job::Name;
use crate::schedule::{Gap, Overlap, Schedule, Spec};

mod calendar;

#[derive(Debug, Subcommand)]
pub(super) enum ScheduleCommand {
    /// Show when any schedule fires, without a configuration and without a store.
    Next(Box<Next>),
    /// Show the fire times of all jobs in a period.
    Calendar {
        /// From this time on: RFC 3339, or without an offset in `--timezone`; a date is its first
        /// moment.
        #[arg(long, value_name = super::period::VALUE)]
        from: When,
        /// Before this time; a date is its last moment.
        #[arg(long, value_name = super::period::VALUE)]
        until: When,
        /// The time zone of `--from` and `--until`. Each job's fires are shown in its own.
        #[arg(long, value_name = "ZONE")]
        timezone: Option<String>,
        /// At most this many fire times.
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
}

/// A schedule as in a configuration, from the command line.
#[derive(Debug, clap::Args)]
pub(super) struct Next {
    /// A cron expression of five fields, of six with seconds, or such as @daily.
    #[arg(value_name = "CRON", required_unless_present_any = ["every", "at"], conflicts_with_all = ["every", "at"])]
    cron: Option<String>,
    /// A distance of elapsed time instead of an expression, such as 15m.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with = "at")]
    every: Option<Duration>,
    /// A single time instead of an expression.
    #[arg(long, value_name = super::period::VALUE)]
    at: Option<String>,
    /// The IANA name of the time zone, such as Europe/Berlin; UTC where it is left out.
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// What happens to a time of day that a clock change leaves out.
    #[arg(long, value_parser = ["run-after", "skip"])]
    gap: Option<String>,
    /// What happens to a time of day that a clock change repeats.
    #[arg(long, value_parser = ["first", "last", "both"])]
    overlap: Option<String>,
    /// What `--every` counts from; 1970-01-01T00:00:00Z where it is left out.
    #[arg(long, value_name = super::period::VALUE, requires = "every")]
    anchor: Option<String>,
    /// How much later than its time a fire may be, drawn for each by `--name`.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, requires = "name")]
    jitter: Option<Duration>,
    /// The name of a job, from which `H` and `--jitter` are drawn.
    #[arg(long, value_name = "JOB")]
    name: Option<Name>,
    #[command(flatten)]
    wanted: Wanted,
}

pub(super) async fn run(global: &Global, command: ScheduleCommand) -> Result<Report, CliError> {
    match command {
        ScheduleCommand::Next(command) => next(&command),
        ScheduleCommand::Calendar { from, until, timezone, limit } => {
            calendar::run(global, from, until, timezone.as_deref(), limit).await
        }
    }
}

fn next(command: &Next) -> Result<Report, CliError> {
    let schedule = schedule(command)?;
    let period = command.wanted.period(schedule.zone(), crate::clock::now())?;
    let count = command.wanted.count();
    let (fires, more) = fires(&schedule, period, count);
    let sentences = schedule.sentences();
    let reason = fires.is_empty().then(|| {
        let until = period.until.map_or_else(String::new, |until| format!(" until {until}"));
        format!("it has no fire time from {}{until}", period.from)
    });
    let json = json!({ "fires": fires, "reason": reason, "meaning": sentences });
    Ok(Report::new(
        &json,
        text(
            &schedule,
            &sentences,
            &fires,
            reason.as_deref(),
            (more && period.until.is_some()).then_some(count),
        ),
    ))
}

fn text(
    schedule: &Schedule,
    sentences: &[String],
    fires: &[FireTime],
    reason: Option<&str>,
    more_than: Option<usize>,
) -> String {
    let rest =
        reason.map_or_else(|| lines(fires, schedule.zone()), |why| format!("It does not fire: {why}."));
    let cut = more_than.map(cut).unwrap_or_default();
    format!("{}\n\n{rest}{cut}", sentences.join("\n"))
}

/// # Errors
/// As in a configuration.
fn schedule(command: &Next) -> Result<Schedule, CliError> {
    let spec = Spec {
        cron: command.cron.clone(),
        every: command.every,
        at: command.at.clone(),
        timezone: command.timezone.clone(),
        anchor: command.anchor.clone(),
        jitter: command.jitter,
        gap: if command.gap.as_deref() == Some("skip") { Gap::Skip } else { Gap::RunAfter },
        overlap: match command.overlap.as_deref() {
            Some("last") => Overlap::Last,
            Some("both") => Overlap::Both,
            _ => Overlap::First,
        },
        name: command.name.as_ref().map(ToString::to_string),
        ..Spec::default()
    };
    Schedule::new(&spec).map_err(|error| {
        let with_name = Spec { name: Some("job".to_owned()), ..spec.clone() };
        let hint = match spec.name {
            None if Schedule::new(&with_name).is_ok() => "; `--name JOB` gives one",
            _ => "",
        };
        CliError::usage(format!("{error}{hint}"))
    })
}
