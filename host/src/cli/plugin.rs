//! `innkeeper plugin …`

mod compile;
mod inspect;

use clap::Subcommand;
use serde::Serialize;
use serde_json::json;

use super::execution::in_one_line;
use super::grants::{Granted, Grants};
use super::table::table;
use super::{CliError, Global, Report};
use crate::store::{Rollback, StoreError};
use crate::wire;

mod reload;
mod rollback;

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// List the plugins that the hosts have loaded, their handlers, and what this host's file grants them.
    List,
    /// Compile components ahead, so that hosts on this machine start at once.
    Compile(compile::Compile),
    /// Have hosts load components anew, while they run.
    Reload(reload::Reload),
    /// Have every host run the component that a plugin was before.
    Rollback(rollback::RollBack),
    /// Show what a component needs and offers, without a host and without a configuration.
    Inspect(inspect::Inspect),
}

pub(super) async fn run(global: &Global, command: PluginCommand) -> Result<Report, CliError> {
    match command {
        PluginCommand::List => list(global).await,
        PluginCommand::Compile(command) => compile::run(global, &command).await,
        PluginCommand::Reload(command) => reload::run(global, command).await,
        PluginCommand::Rollback(command) => rollback::run(global, command).await,
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
    let mut text = table(["PLUGIN", "HANDLER", "HOSTS", "COMPONENT", "SUMMARY"], rows);
    let rollbacks = store.rollbacks().await?;
    for Rollback { plugin, component, replaces, since, reason } in &rollbacks {
        let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        text.push_str(&format!(
            "\n`{plugin}` is rolled back to {component} since {since}, wherever a configuration names {replaces}{reason}"
        ));
    }
    let rollbacks: Vec<_> = rollbacks.iter().map(wire::Rollback::from).collect();
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
    Ok(Report::new(&json!({ "plugins": listed, "rollbacks": rollbacks }), text.trim_end()))
}

/// A plugin of the store.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    plugin: &'a wire::Plugin,
    /// Null where this host's file has no such plugin.
    grants: Option<Grants>,
}
