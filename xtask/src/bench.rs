//! `cargo xtask bench NAME`: builds what a benchmark needs, and runs it.
//!
//! Everything that the builds and installations print goes to standard error, so that the
//! result can be read by a program.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::{self, BenchProgram, Profile};
use crate::postgres::{self, Server, Settings};
use crate::process;
use crate::steps::Steps;
use crate::test::POSTGRES_URL;
use crate::toolchain;

/// The benchmarks that `innkeeper-bench` knows, and what each compares.
const BENCHES: &[(&str, &str)] = &[
    ("db", "the `db` interface of a component against native sqlx, on both engines"),
    ("engine", "whole executions against a bare loop, graphile-worker and awa"),
    ("runtime", "executions without the store against bare wasmtime, and how soon plugins are there"),
    ("schedule", "how long it takes to know when jobs fire"),
];

#[derive(Debug, PartialEq, Eq)]
struct Options<'a> {
    name: &'static str,
    json: bool,
    quick: bool,
    profile: Profile,
    /// Parts of the names of figures; none for all.
    filters: Vec<&'a str>,
}

/// Runs a benchmark.
///
/// # Errors
/// Where it could not be run to its end. A goal that is missed is none: the figures say so.
pub fn run(steps: &mut Steps, args: &[&str]) -> Result<()> {
    let options = Options::parse(args)?;
    let result = process::Output::take()?;
    let given_url = std::env::var(POSTGRES_URL).ok().filter(|url| !url.is_empty());
    steps.run("target of the plugins, added where it is missing", toolchain::add_guest_target)?;
    let programs = match &given_url {
        None => Some(steps.run("PostgreSQL, installed where it is missing", postgres::find_or_install)?),
        Some(_) => None,
    };
    steps.run("build plugins", cargo::build_guests)?;
    steps.run("build the benchmarks", || cargo::build_bench(options.profile))?;
    let built = BenchProgram::find(options.profile)?;
    let server = match &programs {
        None => None,
        // A commit costs what it costs in production.
        Some(programs) => Some(steps.run("start PostgreSQL", || {
            Server::start(programs, &Settings { fsync: true, ..Settings::default() })
        })?),
    };
    let url = server.as_ref().map(Server::url).or(given_url.as_deref()).unwrap_or_default();
    let measured = steps.run("measure", || {
        let status = process::run_through(&mut options.command(&built, url, result)?)?;
        if status.success() { Ok(()) } else { Err(process::failed(status).into()) }
    });
    if let Some(server) = server {
        steps.run("stop PostgreSQL", || server.stop())?;
    }
    measured
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a str]) -> Result<Self> {
        let list = || {
            let lines = BENCHES.iter().map(|(name, what)| format!("\n  {name:<8} {what}"));
            format!("the benchmarks are:{}", lines.collect::<String>())
        };
        let mut args = args.iter().copied();
        let asked = args.next().with_context(|| format!("say which benchmark to run; {}", list()))?;
        let Some((name, _)) = BENCHES.iter().find(|(name, _)| *name == asked) else {
            bail!("there is no benchmark `{asked}`; {}", list());
        };
        let mut options =
            Self { name, json: false, quick: false, profile: Profile::Release, filters: Vec::new() };
        for argument in args {
            match argument {
                "--json" => options.json = true,
                "--quick" => options.quick = true,
                "--dev" => options.profile = Profile::Dev,
                option if option.starts_with('-') => {
                    bail!("`{option}` is no option of `cargo xtask bench`; see `cargo xtask help`")
                }
                filter => options.filters.push(filter),
            }
        }
        Ok(options)
    }

    fn command(&self, built: &BenchProgram, postgres_url: &str, result: process::Output) -> Result<Command> {
        let mut command = Command::new(&built.program);
        command.arg(self.name).args(&self.filters);
        command.args(self.json.then_some("--json")).args(self.quick.then_some("--quick"));
        command.env(POSTGRES_URL, postgres_url).env("INNKEEPER_GUESTS", &built.guests);
        command.stdout(result.into_stdio());
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_filters_of_a_benchmark_are_told_apart() {
        let plain =
            Options { name: "db", json: false, quick: false, profile: Profile::Release, filters: Vec::new() };
        assert_eq!(Options::parse(&["db"]).unwrap(), plain);
        let all = Options {
            json: true,
            quick: true,
            profile: Profile::Dev,
            filters: vec!["cursor", "one_sqlite"],
            ..plain
        };
        let args = ["db", "--json", "cursor", "--quick", "--dev", "one_sqlite"];
        assert_eq!(Options::parse(&args).unwrap(), all);
        assert!(Options::parse(&["db", "--jsn"]).is_err());
    }

    #[test]
    fn a_benchmark_that_is_not_there_is_answered_with_those_that_are() {
        for args in [&["sql"][..], &[]] {
            let error = Options::parse(args).unwrap_err().to_string();
            assert!(error.contains("the benchmarks are:\n  db "), "{error}");
        }
    }
}
