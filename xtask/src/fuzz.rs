//! `cargo xtask fuzz`: builds the fuzz targets, and runs them.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::Built;
use crate::process;
use crate::program;
use crate::steps::Steps;
use crate::test::POSTGRES_URL;

/// What there is to fuzz.
const TARGETS: &[&str] = &["configuration", "loading", "arguments"];

#[derive(Debug, Default, PartialEq, Eq)]
struct Options<'a> {
    target: Option<&'a str>,
    file: Option<&'a str>,
    seconds: Option<u64>,
    seed: Option<u64>,
    verbose: bool,
}

/// Runs the fuzz targets.
///
/// # Errors
/// Where they could not be run to the end, or something was found.
pub fn run(steps: &mut Steps, args: &[&str]) -> Result<()> {
    let options = Options::parse(args)?;
    let result = process::Output::take()?;
    let needs_postgres = options.target.is_none_or(|target| target == "arguments");
    program::run(steps, "fuzz targets", needs_postgres, |built, url| {
        let mut command = options.command(built, url);
        command.stdout(result.into_stdio());
        command
    })
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a str]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter().copied();
        while let Some(argument) = args.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value)),
                _ => (argument, None),
            };
            match name {
                "--seconds" | "--seed" => {
                    let value =
                        value.or_else(|| args.next()).with_context(|| format!("{name} needs a value"))?;
                    let number =
                        value.parse().with_context(|| format!("`{value}` is no number for {name}"))?;
                    let option = if name == "--seed" { &mut options.seed } else { &mut options.seconds };
                    *option = Some(number);
                }
                "--verbose" => options.verbose = true,
                _ if name.starts_with('-') => {
                    bail!("`{argument}` is no option of `cargo xtask fuzz`; see `cargo xtask help`")
                }
                target if options.target.is_none() => {
                    if !TARGETS.contains(&target) {
                        bail!("`{target}` is not among what is fuzzed: {}", TARGETS.join(", "));
                    }
                    options.target = Some(target);
                }
                file if options.file.is_none() => options.file = Some(file),
                _ => bail!("`{argument}` is one argument too many; see `cargo xtask help`"),
            }
        }
        Ok(options)
    }

    fn command(&self, built: &Built, postgres_url: &str) -> Command {
        let mut command = Command::new(&built.fuzz);
        command.args(self.target).args(self.file);
        for (name, number) in [("--seconds", self.seconds), ("--seed", self.seed)] {
            command.args(number.map(|number| format!("{name}={number}")));
        }
        command.args(self.verbose.then_some("--verbose"));
        command.env(POSTGRES_URL, postgres_url).env("INNKEEPER_GUESTS", &built.guests);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_how_long_and_with_which_seed_can_be_given() {
        assert_eq!(Options::parse(&[]).unwrap(), Options::default());
        let given = Options::parse(&["loading", "--seconds=5", "--seed", "7", "--verbose", "a/b=c"]).unwrap();
        let expected = Options {
            target: Some("loading"),
            file: Some("a/b=c"),
            seconds: Some(5),
            seed: Some(7),
            verbose: true,
        };
        assert_eq!(given, expected);
        for wrong in [&["--seed"][..], &["--seed=x"], &["nothing"], &["loading", "a", "b"], &["--days=1"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
