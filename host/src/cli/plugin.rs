//! `innkeeper plugin …`

use clap::Subcommand;
use serde::Serialize;
use serde_json::json;

use super::execution::in_one_line;
use super::grants::{Granted, Grants};
use super::table::table;
use super::{CliError, Global, Report};
use crate::store::StoreError;
use crate::wire;

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// List the plugins that the hosts have loaded, their handlers, and what this host's file grants them.
    List,
}

pub(super) async fn run(global: &Global, command: PluginCommand) -> Result<Report, CliError> {
    let PluginCommand::List = command;
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
    let config = global.load()?;
    let listed = plugins.iter().map(|plugin| Listed {
        grants: config
            .plugins
            .iter()
            .find(|(name, _)| name.as_str() == plugin.name)
            .map(|(_, plugin)| Grants::of(plugin)),
        plugin,
    });
    let listed: Vec<_> = listed.collect();
    let text = format!("{}\n\n{}", text.trim_end(), Granted(&config));
    Ok(Report::new(&json!({ "plugins": listed }), text.trim_end()))
}

/// A plugin of the store.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    plugin: &'a wire::Plugin,
    /// Null where this host's file has no such plugin.
    grants: Option<Grants>,
}
