//! Limits that promise more at once than there is room for.
//!
//! Only what the file says is complained about: the defaults are made for hosts whose executions
//! are rarely all in a database at the same time.

use humantime::format_duration;

use super::named;
use crate::config::{Config, ConfigError, DatabaseConfig, GrantKey, JobKey, PluginConfig};
use crate::database_url::DatabaseUrl;
use crate::job::{Job, Name};
use crate::policy::Queue;

/// Warns of concurrency that no pool of connections, no queue and no host can serve.
pub(super) fn warnings(config: &Config) -> Vec<ConfigError> {
    let mut warnings = grants(config);
    warnings.extend(host(config));
    warnings.extend(config.plugins.iter().filter_map(|(name, plugin)| of_plugin(config, name, plugin)));
    warnings.extend(config.queues.values().flat_map(|queue| of_queue(config, queue)));
    warnings.extend(config.jobs.values().filter_map(|job| of_job(config, job)));
    warnings
}

/// Transactions that one execution alone could never have open.
fn grants(config: &Config) -> Vec<ConfigError> {
    let mut warnings = Vec::new();
    for (plugin, granted) in &config.plugins {
        for (name, grant) in &granted.databases {
            let Some(database) = config.databases.get(name) else { continue };
            let (open, connections) = (grant.max_open_transactions, database.max_connections);
            let written = config.location_in_grant(plugin, name, GrantKey::MaxOpenTransactions);
            if let Some(location) = written.filter(|_| open > connections) {
                let message = format!(
                    "one execution of plugin `{plugin}` may have {open} transactions open in database `{name}`, \
                     which has {connections} connections for all of them: a transaction more waits {} and then \
                     fails; set `max_open_transactions` to {connections} or less, or `max_connections` of \
                     [databases.{name}] to more",
                    format_duration(database.acquire_timeout),
                );
                warnings.push(ConfigError { location, message });
            }
        }
    }
    warnings
}

/// More executions at once than a database has connections, where the file asks for so many.
fn host(config: &Config) -> Option<ConfigError> {
    let location = config.location_of_concurrency()?;
    let concurrency = config.host.concurrency;
    // At once in a database: of each plugin that may use it as many as its limit lets run.
    let users = |name: &Name| {
        let plugins = config.plugins.values().filter(|plugin| plugin.databases.contains_key(name));
        plugins.map(|plugin| at_once(config, plugin)).fold(0, usize::saturating_add).min(concurrency)
    };
    let small: Vec<(&Name, &DatabaseConfig)> = config
        .databases
        .iter()
        .filter(|(name, database)| (database.max_connections as usize) < users(name))
        .collect();
    let (first, database) = small.first()?;
    let names: Vec<&Name> = small.iter().map(|(name, _)| *name).collect();
    let message = format!(
        "this host runs {concurrency} executions at once, which is more than the {} connections of {} {}: what \
         finds them all in use waits {} and then fails; raise `max_connections` of [databases.{first}], or lower \
         `concurrency`",
        database.max_connections,
        if small.len() == 1 { "database" } else { "the databases" },
        named(&names),
        format_duration(database.acquire_timeout),
    );
    Some(ConfigError { location, message })
}

/// Executions of a plugin at once on this host.
fn at_once(config: &Config, plugin: &PluginConfig) -> usize {
    let slots = config.host.concurrency;
    plugin.limits.concurrency.map_or(slots, |limit| slots.min(limit as usize))
}

fn of_plugin(config: &Config, name: &Name, plugin: &PluginConfig) -> Option<ConfigError> {
    let slots = config.host.concurrency;
    let limit = plugin.limits.concurrency.filter(|limit| *limit as usize > slots)?;
    let message = format!(
        "plugin `{name}` may run {limit} executions at once on this host, and this host runs {slots} of all \
         plugins: `limits.concurrency` is never reached"
    );
    Some(ConfigError { location: config.location_of_plugin(name), message })
}

fn of_queue(config: &Config, queue: &Queue) -> Vec<ConfigError> {
    let (name, slots) = (&queue.name, config.host.concurrency);
    let mut found = Vec::new();
    if let Some(limit) = queue.limit_per_host.filter(|limit| *limit as usize > slots) {
        found.push(format!(
            "queue `{name}` may run {limit} executions at once on one host, and this host runs {slots} of all \
             queues: `limit_per_host` is never reached"
        ));
    }
    if let (Some(limit), Some(per_host)) = (queue.limit, queue.limit_per_host)
        && per_host > limit
    {
        found.push(format!(
            "queue `{name}` may run {per_host} executions at once on one host, and {limit} on all hosts \
             together: `limit_per_host` is never reached"
        ));
    }
    if let Some(limit) = queue.limit.filter(|limit| is_alone(config) && *limit as usize > slots) {
        found.push(format!(
            "queue `{name}` may run {limit} executions at once, and this host, the only one that a SQLite store \
             has, runs {slots}: `limit` is never reached"
        ));
    }
    let location = config.location_of_queue(name);
    found.into_iter().map(|message| ConfigError { location: location.clone(), message }).collect()
}

/// The first reason why a job never reaches its limit.
fn of_job(config: &Config, job: &Job) -> Option<ConfigError> {
    let limit = job.policies.concurrency.as_ref()?.limit?;
    let slots = config.host.concurrency;
    let default = Queue::DEFAULT;
    let queue = config.queues.get(job.policies.queue.as_ref().map_or(default, Name::as_str));
    let of_queue = queue.and_then(|queue| Some((queue, queue.limit?))).filter(|(_, most)| *most < limit);
    let plugin = config.plugins.get(&job.plugin);
    // What runs at once on one host, which has its own connections.
    let of_plugin = plugin.map_or(slots, |plugin| at_once(config, plugin));
    let here = (limit as usize).min(of_plugin);
    let databases = plugin.map(|plugin| plugin.databases.keys()).into_iter().flatten();
    let small = databases
        .filter_map(|name| Some((name, config.databases.get(name)?)))
        .find(|(_, database)| (database.max_connections as usize) < here);
    let why = if is_alone(config) && limit as usize > slots {
        format!(
            "this host, the only one that a SQLite store has, runs {slots}: raise `concurrency` of [host], or \
             lower `limit`"
        )
    } else if is_alone(config) && limit as usize > of_plugin {
        format!(
            "this host, the only one that a SQLite store has, runs {of_plugin} of its plugin: raise \
             `concurrency` of [plugins.{}.limits], or lower `limit`",
            job.plugin
        )
    } else if let Some((queue, most)) = of_queue {
        format!(
            "its queue `{}` runs {most}: raise `limit` of [queues.{0}], or lower that of the job",
            queue.name
        )
    } else if let Some((name, database)) = small {
        format!(
            "database `{name}`, which its plugin may use, has {} connections on a host: what finds them all in \
             use waits {} and then fails; raise `max_connections` of [databases.{name}], or lower `limit`",
            database.max_connections,
            format_duration(database.acquire_timeout),
        )
    } else {
        return None;
    };
    let message = format!("{limit} executions of job `{}` may run at once, and {why}", job.name);
    Some(ConfigError { location: config.location_of_job(&job.name, JobKey::Concurrency), message })
}

/// SQLite stores are of one host.
fn is_alone(config: &Config) -> bool {
    matches!(config.store.url, DatabaseUrl::Sqlite(_))
}
