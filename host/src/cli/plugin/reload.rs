//! `innkeeper plugin reload`

use crate::cli::{CliError, Global, Report, reload};
use crate::job::Name;
use crate::store::ReloadWish;

/// Have hosts load components anew, while they run.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Reload {
    /// The plugin. Default: all of them.
    name: Option<Name>,
    /// The host. Default: every live host.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Wait until the hosts have done it, and tell how it went.
    #[arg(long)]
    wait: bool,
    /// First end the rollback of the plugin: hosts run what their configurations name again.
    #[arg(long, requires = "name")]
    end_rollback: bool,
}

pub(super) async fn run(global: &Global, command: Reload) -> Result<Report, CliError> {
    let Reload { name, host, wait, end_rollback } = command;
    let store = global.open_store().await?;
    let mut before = String::new();
    if let (Some(name), true) = (&name, end_rollback) {
        if !store.end_rollback(name).await? {
            return Err(CliError::usage(format!("plugin `{name}` is not rolled back")));
        }
        before = format!("Plugin `{name}` is what the configurations name again.\n");
    }
    let wish = name.map_or(ReloadWish::Plugins, ReloadWish::Plugin);
    reload::reload(&store, &wish, host.as_deref(), wait, &before).await
}
