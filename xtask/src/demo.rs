//! `cargo xtask demo`: builds what the demo needs, and runs it.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::{self, Built};
use crate::postgres::{self, Server, Settings};
use crate::process;
use crate::steps::Steps;
use crate::toolchain;

/// The PostgreSQL on which the demo makes its two databases, by a superuser's URL.
const POSTGRES_URL: &str = "INNKEEPER_DEMO_POSTGRES_URL";

#[derive(Debug, Default, PartialEq, Eq)]
struct Options<'a> {
    once: bool,
    postgres: bool,
    fsync: bool,
    args: Vec<&'a str>,
}

/// Runs the demo.
pub fn run(steps: &mut Steps, args: &[&str]) -> Result<()> {
    let options = Options::parse(args)?;
    let given_url = std::env::var(POSTGRES_URL).ok().filter(|url| !url.is_empty());
    steps.run("target of the plugins, added where it is missing", toolchain::add_guest_target)?;
    let programs = if options.postgres && given_url.is_none() {
        Some(steps.run("PostgreSQL, installed where it is missing", postgres::find_or_install)?)
    } else {
        None
    };
    steps.run("build plugins", cargo::build_guests)?;
    steps.run("build host", cargo::build_programs)?;
    let built = Built::find()?;
    let server = match &programs {
        None => None,
        Some(programs) => Some(steps.run("start PostgreSQL", || {
            Server::start(programs, &Settings { fsync: options.fsync, ..Settings::default() })
        })?),
    };
    let url = server.as_ref().map(Server::url).or(given_url.as_deref());
    let result = steps.run("demo", || {
        let status = process::run_through(&mut options.command(&built, url))?;
        if status.success() { Ok(()) } else { Err(process::failed(status).into()) }
    });
    if let Some(server) = server {
        steps.run("stop PostgreSQL", || server.stop())?;
    }
    if options.once {
        steps.report();
    }
    result
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a str]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter().copied();
        while let Some(argument) = args.next() {
            let engine = match argument {
                "--store" => Some(args.next().context("--store needs `sqlite` or `postgres`")?),
                other => other.strip_prefix("--store="),
            };
            match (argument, engine) {
                (_, Some("sqlite")) => options.postgres = false,
                (_, Some("postgres")) => options.postgres = true,
                (_, Some(other)) => {
                    bail!("`{other}` is no store; write `--store sqlite` or `--store postgres`")
                }
                ("--once", _) => options.once = true,
                ("--fsync", _) => options.fsync = true,
                ("--", _) => options.args = args.by_ref().collect(),
                (other, None) => {
                    bail!("`{other}` is no option of `cargo xtask demo`; see `cargo xtask help`")
                }
            }
        }
        Ok(options)
    }

    fn command(&self, built: &Built, postgres_url: Option<&str>) -> Command {
        let mut demo = Command::new(&built.demo);
        demo.env("INNKEEPER_BIN", &built.host).env("INNKEEPER_GUESTS", &built.guests);
        if self.once {
            demo.arg("--once");
        }
        if self.postgres {
            demo.args(["--store", "postgres"]);
        }
        if let Some(url) = postgres_url {
            demo.env(POSTGRES_URL, url);
        }
        demo.args(&self.args);
        demo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_one_of_two() {
        let postgres = Options { postgres: true, ..Options::default() };
        assert_eq!(Options::parse(&["--store", "postgres"]).unwrap(), postgres);
        assert_eq!(Options::parse(&["--store=postgres"]).unwrap(), postgres);
        assert_eq!(Options::parse(&["--store", "sqlite"]).unwrap(), Options::default());
        for wrong in [&["--store", "mysql"][..], &["--store"], &["--twice"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn options_and_arguments_of_the_demo_program_are_told_apart() {
        let options = Options::parse(&["--once", "--", "--folder", "x"]).unwrap();
        assert_eq!(options, Options { once: true, args: vec!["--folder", "x"], ..Options::default() });
    }
}
