//! `cargo xtask test`: everything that the tests need, then the tests.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::{self, Built};
use crate::django;
use crate::postgres::{self, Server, Settings};
use crate::process;
use crate::server_program::{PGBOUNCER, REGISTRY};
use crate::steps::Steps;
use crate::summary::Counts;
use crate::toolchain;

/// The PostgreSQL that the tests use, by a superuser's URL.
pub const POSTGRES_URL: &str = "INNKEEPER_TEST_POSTGRES_URL";

/// What to test.
#[derive(Debug, Default, PartialEq, Eq)]
struct Selection<'a> {
    /// Only the test program `sessions`.
    sessions: bool,
    /// The PostgreSQL that is started here writes to the disk as in production.
    fsync: bool,
    /// Parts of the names of tests; none for all.
    filters: Vec<&'a str>,
    /// Further arguments of the test programs.
    args: Vec<&'a str>,
}

/// Runs the tests.
///
/// # Errors
/// Where they could not be run to their end. A test that failed is no error, but counted.
pub fn run(steps: &mut Steps, args: &[&str]) -> Result<Counts> {
    let selection = Selection::parse(args)?;
    let given_url = std::env::var(POSTGRES_URL).ok().filter(|url| !url.is_empty());
    // First what may be missing, so that nobody waits for a build to hear of it.
    steps.run("target of the plugins, added where it is missing", toolchain::add_guest_target)?;
    let programs = match &given_url {
        None => Some(steps.run("PostgreSQL, installed where it is missing", postgres::find_or_install)?),
        Some(_) => None,
    };
    for program in [PGBOUNCER, REGISTRY] {
        steps.run(program.title, || program.find_or_install())?;
    }
    let python = if selection.sessions {
        None
    } else {
        let title = "Django in a Python environment, installed where it is missing";
        Some(steps.run(title, django::find_or_install)?)
    };
    steps.run("build plugins", cargo::build_guests)?;
    steps.run("build host", cargo::build_programs)?;
    steps.run("build tests", || {
        process::run_to_success(selection.cargo_test().arg("--no-run"))
            .context("the tests could not be built")
    })?;
    let built = Built::find()?;
    let server = match &programs {
        None => None,
        Some(programs) => Some(steps.run("start PostgreSQL", || {
            let settings = Settings { fsync: selection.fsync, ..Settings::default() };
            Server::start(programs, &settings)
        })?),
    };
    let url = server.as_ref().map(Server::url).or(given_url.as_deref()).unwrap_or_default();
    let result = steps.run("tests", || selection.test(&built, url, python.as_deref()));
    if let Some(server) = server {
        steps.run("stop PostgreSQL", || server.stop())?;
    }
    result
}

impl<'a> Selection<'a> {
    fn parse(args: &[&'a str]) -> Result<Self> {
        let mut selection = Self::default();
        let mut args = args.iter().copied();
        while let Some(argument) = args.next() {
            match argument {
                "--" => selection.args = args.by_ref().collect(),
                "--fsync" => selection.fsync = true,
                "sessions" if selection.filters.is_empty() && !selection.sessions => {
                    selection.sessions = true
                }
                option if option.starts_with('-') => {
                    bail!(
                        "`{option}` is no option of `cargo xtask test`; put it after `--` for the test programs"
                    )
                }
                filter => selection.filters.push(filter),
            }
        }
        Ok(selection)
    }

    /// `cargo test` with the packages and targets of this selection.
    fn cargo_test(&self) -> Command {
        let mut command = cargo::command();
        command.arg("test").args(cargo::HOST_PACKAGES);
        if self.sessions {
            command.args(["--test", "sessions"]);
        }
        command
    }

    fn test(&self, built: &Built, postgres_url: &str, python: Option<&Path>) -> Result<Counts> {
        let mut command = self.cargo_test();
        if let Some(python) = python {
            command.env("INNKEEPER_TEST_PYTHON", python);
        }
        command
            // So that the sums are those of all tests.
            .arg("--no-fail-fast")
            .env(POSTGRES_URL, postgres_url)
            .env("INNKEEPER_BIN", &built.host)
            .env("INNKEEPER_DEMO_BIN", &built.demo)
            .env("INNKEEPER_GUESTS", &built.guests)
            // A filter for cargo itself could be only one.
            .arg("--")
            .args(&self.filters)
            .args(&self.args);
        let (status, counts) =
            process::run_reading(&mut command, |output| Counts::while_copying(output, std::io::stdout()))?;
        let mut counts = counts.context("the output of the tests could not be passed on")?;
        if !status.success() && counts.failed == 0 {
            eprintln!(
                "xtask: no test failed, but cargo did ({status}); see above for a test program that crashed"
            );
            counts.failed = 1;
        }
        let ran_some = counts.passed + counts.failed > 0;
        // Listing tests, and the help of the test programs, run none.
        if !ran_some && self.args.is_empty() {
            match self.filters[..] {
                [] => bail!("there was no test to run"),
                _ => bail!("no test has a name like {}", self.filters.join(" or ")),
            }
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_options_and_arguments_are_told_apart() {
        let parsed = Selection::parse(&["lease", "--fsync", "sessions", "--", "--nocapture", "x"]).unwrap();
        let expected = Selection {
            sessions: false,
            fsync: true,
            filters: vec!["lease", "sessions"],
            args: vec!["--nocapture", "x"],
        };
        assert_eq!(parsed, expected);
        let parsed = Selection::parse(&["sessions", "pool"]).unwrap();
        assert_eq!(parsed, Selection { sessions: true, filters: vec!["pool"], ..Selection::default() });
        assert!(Selection::parse(&["--nocapture"]).is_err());
    }
}
