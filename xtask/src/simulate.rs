//! `cargo xtask simulate`: builds the simulation and runs it.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::Built;
use crate::process;
use crate::program;
use crate::steps::Steps;
use crate::test::POSTGRES_URL;

#[derive(Debug, PartialEq, Eq)]
struct Options<'a> {
    seed: Option<u64>,
    days: u32,
    /// `sqlite` or `postgres`.
    engine: &'a str,
    verbose: bool,
}

/// Runs the simulation.
///
/// # Errors
/// Where it could not be run to its end, or something does not hold that has to.
pub fn run(steps: &mut Steps, args: &[&str]) -> Result<()> {
    let options = Options::parse(args)?;
    let result = process::Output::take()?;
    program::run(steps, "simulation", options.engine == "postgres", |built, url| {
        let mut command = options.command(built, url);
        command.stdout(result.into_stdio());
        command
    })
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a str]) -> Result<Self> {
        let mut options = Self { seed: None, days: 30, engine: "sqlite", verbose: false };
        let mut args = args.iter().copied();
        while let Some(argument) = args.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (argument, None),
            };
            if argument == "--verbose" {
                options.verbose = true;
                continue;
            }
            if !["--seed", "--days", "--engine"].contains(&name) {
                bail!("`{argument}` is no option of `cargo xtask simulate`; see `cargo xtask help`");
            }
            let value = value.or_else(|| args.next()).with_context(|| format!("{name} needs a value"))?;
            let no_number = || format!("`{value}` is no number, which {name} needs");
            match name {
                "--seed" => options.seed = Some(value.parse().with_context(no_number)?),
                "--days" => options.days = value.parse().with_context(no_number)?,
                _ if ["sqlite", "postgres"].contains(&value) => options.engine = value,
                _ => bail!("`{value}` is no engine: `sqlite` or `postgres`"),
            }
        }
        Ok(options)
    }

    fn command(&self, built: &Built, postgres_url: &str) -> Command {
        let mut command = Command::new(&built.simulate);
        command.args(["--days", &self.days.to_string(), "--engine", self.engine]);
        command.args(self.seed.map(|seed| format!("--seed={seed}")));
        command.args(self.verbose.then_some("--verbose"));
        command.env(POSTGRES_URL, postgres_url);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_a_number_of_days_and_an_engine_can_be_given() {
        let usual = Options { seed: None, days: 30, engine: "sqlite", verbose: false };
        assert_eq!(Options::parse(&[]).unwrap(), usual);
        let expected = Options { seed: Some(7), days: 90, engine: "postgres", verbose: true };
        let args = ["--seed", "7", "--days=90", "--engine", "postgres", "--verbose"];
        assert_eq!(Options::parse(&args).unwrap(), expected);
        for wrong in [&["--seed"][..], &["--days", "many"], &["--engine=both"], &["30"], &["--sead=1"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
