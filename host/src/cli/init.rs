//! `innkeeper init`

use std::io::Write as _;

use serde_json::json;

use super::{CliError, Global, Report};
use crate::config::EXAMPLE;

/// Write a commented innkeeper.toml to start from.
#[derive(Debug, clap::Args)]
pub(super) struct Init {}

pub(super) fn run(global: &Global, _command: &Init) -> Result<Report, CliError> {
    let path = &global.config;
    // Created only if it is not there: an operator's file is never overwritten.
    let file = std::fs::File::options().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(EXAMPLE.as_bytes()));
    match written {
        Ok(()) => Ok(Report::new(
            &json!({ "config": path }),
            format!(
                "Wrote {}. Fill it in, then `innkeeper check` says what is wrong and `innkeeper serve` runs it.",
                path.display()
            ),
        )),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(CliError::usage(format!(
            "{} is there already and was left as it is; name another file with `--config FILE`",
            path.display()
        ))),
        Err(error) => Err(CliError::usage(format!("{} cannot be written: {error}", path.display()))),
    }
}
