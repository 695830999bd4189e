//! `cargo xtask soak`: builds what the soak test needs, and runs it.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::Built;
use crate::process;
use crate::program;
use crate::steps::Steps;
use crate::test::POSTGRES_URL;

#[derive(Debug, PartialEq, Eq)]
struct Options<'a> {
    minutes: u32,
    /// Of 22 executions, in each second.
    rounds: u32,
    /// `sqlite`, `postgres` or `both`.
    engine: &'a str,
}

/// Runs the soak test.
///
/// # Errors
/// Where it could not be run to its end, or something grows.
pub fn run(steps: &mut Steps, args: &[&str]) -> Result<()> {
    let options = Options::parse(args)?;
    let result = process::Output::take()?;
    program::run(steps, "soak test", options.engine != "sqlite", |built, url| {
        let mut command = options.command(built, url);
        command.stdout(result.into_stdio());
        command
    })
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a str]) -> Result<Self> {
        let mut options = Self { minutes: 60, rounds: 5, engine: "both" };
        let mut args = args.iter().copied();
        while let Some(argument) = args.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (argument, None),
            };
            if !["--minutes", "--rounds", "--engine"].contains(&name) {
                bail!("`{argument}` is no option of `cargo xtask soak`; see `cargo xtask help`");
            }
            let value = value.or_else(|| args.next()).with_context(|| format!("{name} needs a value"))?;
            if name == "--minutes" {
                options.minutes = value
                    .parse()
                    .ok()
                    .filter(|minutes| *minutes >= 6)
                    .with_context(|| format!("`{value}` is no number of minutes from 6 on"))?;
            } else if name == "--rounds" {
                options.rounds = value
                    .parse()
                    .ok()
                    .filter(|rounds| *rounds > 0)
                    .with_context(|| format!("`{value}` is no number of rounds from 1 on"))?;
            } else if ["sqlite", "postgres", "both"].contains(&value) {
                options.engine = value;
            } else {
                bail!("`{value}` is no engine: `sqlite`, `postgres` or `both`");
            }
        }
        Ok(options)
    }

    fn command(&self, built: &Built, postgres_url: &str) -> Command {
        let mut command = Command::new(&built.soak);
        command.args(["--minutes", &self.minutes.to_string(), "--rounds", &self.rounds.to_string()]);
        command.args(["--engine", self.engine]);
        command.env(POSTGRES_URL, postgres_url);
        command.env("INNKEEPER_BIN", &built.host).env("INNKEEPER_GUESTS", &built.guests);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_and_on_which_engine_can_be_given() {
        assert_eq!(Options::parse(&[]).unwrap(), Options { minutes: 60, rounds: 5, engine: "both" });
        let expected = Options { minutes: 600, rounds: 20, engine: "sqlite" };
        assert_eq!(
            Options::parse(&["--minutes=600", "--rounds", "20", "--engine", "sqlite"]).unwrap(),
            expected
        );
        for wrong in [
            &["--minutes"][..],
            &["--minutes", "5"],
            &["--rounds=0"],
            &["--engine=mysql"],
            &["60"],
            &["--hours=1"],
        ] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
