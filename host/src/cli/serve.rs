//! `innkeeper serve`

use serde_json::json;

use super::{CliError, Global, Report};
use crate::daemon::{self, ServeError, ServeOptions};
use crate::telemetry;

/// Run the host until SIGINT or SIGTERM, then drain it.
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    /// Do not bring the store's schema up to date first.
    #[arg(long)]
    no_migrate: bool,
}

pub(super) async fn run(global: &Global, command: &Serve) -> Result<Report, CliError> {
    telemetry::start(global.json);
    let config = global.load()?;
    let served = daemon::serve(config, ServeOptions { migrate: !command.no_migrate }).await;
    match served {
        Ok(()) => Ok(Report::new(&json!({ "stopped": true }), "")),
        Err(ServeError::Configuration(errors)) => Err(errors.into()),
        Err(ServeError::Store(error)) => Err(error.into()),
        // What this machine does not give, such as address space for so many at once.
        Err(ServeError::Other(error)) => Err(CliError::usage(format!("{error:#}"))),
    }
}
