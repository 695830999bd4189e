//! `cargo xtask chaos`: builds what the crash tests need, and runs them.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::{self, Built};
use crate::postgres;
use crate::process;
use crate::steps::Steps;
use crate::toolchain;

#[derive(Debug, PartialEq, Eq)]
struct Options {
    seed: Option<u64>,
    faults: u64,
}

/// Runs the crash tests.
///
/// # Errors
/// Where they could not be run to their end, or something does not hold that has to.
pub fn run(steps: &mut Steps, args: &[&str]) -> Result<()> {
    let options = Options::parse(args)?;
    let result = process::Output::take()?;
    steps.run("target of the plugins, added where it is missing", toolchain::add_guest_target)?;
    // The crash tests find it themselves, and start and stop one of their own.
    steps.run("PostgreSQL, installed where it is missing", postgres::find_or_install)?;
    steps.run("build plugins", cargo::build_guests)?;
    steps.run("build host", cargo::build_programs)?;
    let built = Built::find()?;
    steps.run("crash tests", || {
        let status = process::run_through(options.command(&built).stdout(result.into_stdio()))?;
        if status.success() { Ok(()) } else { Err(process::failed(status).into()) }
    })
}

impl Options {
    fn parse(args: &[&str]) -> Result<Self> {
        let mut options = Self { seed: None, faults: 20 };
        let mut args = args.iter().copied();
        while let Some(argument) = args.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (argument, None),
            };
            if !["--seed", "--faults"].contains(&name) {
                bail!("`{argument}` is no option of `cargo xtask chaos`; see `cargo xtask help`");
            }
            let value = value.or_else(|| args.next()).with_context(|| format!("{name} needs a number"))?;
            let number =
                value.parse().with_context(|| format!("`{value}` is no number, which {name} needs"))?;
            match name {
                "--seed" => options.seed = Some(number),
                _ => options.faults = number,
            }
        }
        Ok(options)
    }

    fn command(&self, built: &Built) -> Command {
        let mut command = Command::new(&built.chaos);
        command.env("INNKEEPER_BIN", &built.host).env("INNKEEPER_GUESTS", &built.guests);
        command.args(["--faults", &self.faults.to_string()]);
        if let Some(seed) = self.seed {
            command.args(["--seed", &seed.to_string()]);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_number_of_faults_can_be_given() {
        assert_eq!(Options::parse(&[]).unwrap(), Options { seed: None, faults: 20 });
        let expected = Options { seed: Some(7), faults: 200 };
        assert_eq!(Options::parse(&["--seed", "7", "--faults=200"]).unwrap(), expected);
        for wrong in [&["--seed"][..], &["--faults", "many"], &["20"], &["--sead=1"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
