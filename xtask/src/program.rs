//! Runs a program of the tests' that takes long: builds it with what it needs, and gives it a PostgreSQL
//! where it wants one.

use std::process::Command;

use anyhow::Result;

use crate::cargo::{self, Built};
use crate::postgres::{self, Server, Settings};
use crate::process;
use crate::steps::Steps;
use crate::test::POSTGRES_URL;
use crate::toolchain;

/// Builds all programs, and runs the one that `command` makes of them and of the URL of a PostgreSQL:
/// the one that the environment names, one that is started for it, or an empty text.
///
/// # Errors
/// Where it could not be run to its end, or ended with a failure.
pub fn run(
    steps: &mut Steps,
    name: &'static str,
    needs_postgres: bool,
    command: impl FnOnce(&Built, &str) -> Command,
) -> Result<()> {
    let given_url = std::env::var(POSTGRES_URL).ok().filter(|url| !url.is_empty());
    let needs_server = needs_postgres && given_url.is_none();
    steps.run("target of the plugins, added where it is missing", toolchain::add_guest_target)?;
    let programs = needs_server
        .then(|| steps.run("PostgreSQL, installed where it is missing", postgres::find_or_install))
        .transpose()?;
    // Also for a program that runs no plugin: one build serves all.
    steps.run("build plugins", cargo::build_guests)?;
    steps.run("build host", cargo::build_programs)?;
    let built = Built::find()?;
    let server = match &programs {
        None => None,
        Some(programs) => {
            Some(steps.run("start PostgreSQL", || Server::start(programs, &Settings::default()))?)
        }
    };
    let url = server.as_ref().map(Server::url).or(given_url.as_deref()).unwrap_or_default();
    let ran = steps.run(name, || {
        let status = process::run_through(&mut command(&built, url))?;
        if status.success() { Ok(()) } else { Err(process::failed(status).into()) }
    });
    if let Some(server) = server {
        steps.run("stop PostgreSQL", || server.stop())?;
    }
    ran
}
