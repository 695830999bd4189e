//! `innkeeper plugin …`

mod inspect;

use clap::Subcommand;
use serde_json::json;

use super::execution::in_one_line;
use super::table::table;
use super::{CliError, Global, Report};
use crate::store::StoreError;
use crate::wire;

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// List the plugins that the hosts have loaded, and their handlers.
    List,
    /// Show what a component needs and offers, without a host and without a configuration.
    Inspect(inspect::Inspect),
}

pub(super) async fn run(global: &Global, command: PluginCommand) -> Result<Report, CliError> {
    match command {
        PluginCommand::List => list(global).await,
        PluginCommand::Inspect(command) => inspect::run(global, &command).await,
    }
}

async fn list(global: &Global) -> Result<Report, CliError> {
    let store = global.open_store().await?;
    let plugins = store.plugins().await?.into_iter().map(wire::Plugin::try_from);
    let plugins = plugins.collect::<Result<Vec<_>, _>>().map_err(StoreError::Corrupt)?;
    if plugins.is_empty() {
        let text = "There are no plugins yet: `innkeeper serve` writes those that it loads to the store.";
        return Ok(Report::new(&json!({ "plugins": [] }), text));
    }
    let rows = plugins.iter().flat_map(|plugin| {
        plugin.handlers.iter().map(|handler| {
            let hosts = if plugin.hosts.is_empty() { "none".to_owned() } else { plugin.hosts.join(", ") };
            let digest = plugin.component_digest.chars().take("sha256:".len() + 12).collect();
            [plugin.name.clone(), handler.name.clone(), hosts, digest, in_one_line(&handler.summary)]
        })
    });
    let text = table(["PLUGIN", "HANDLER", "HOSTS", "COMPONENT", "SUMMARY"], rows);
    Ok(Report::new(&json!({ "plugins": plugins }), text))
}
