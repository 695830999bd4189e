//! What is wrong with a configuration once its components are known: handlers that are not
//! there, arguments that do not fit. And what is right in itself, but hardly meant.

mod capacity;
pub mod difference;
pub mod durations;
mod forecast;
pub mod reload;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

use crate::config::{Config, ConfigError, ConfigErrors, JobKey};
use crate::engine::registry::{Plugin, PluginProblem, Registry};
use crate::job::Name;

/// Everything that keeps the configuration from being served, in the order of the file.
#[must_use]
pub fn complaints(config: &Config, plugins: &Registry, problems: &[PluginProblem]) -> ConfigErrors {
    let mut complaints = Vec::new();
    let mut args_complaints = ConfigErrors::default();
    for problem in problems {
        let location = config.location_of_plugin(&problem.plugin);
        let message = format!("plugin `{}`: {}", problem.plugin, problem.message);
        complaints.push(ConfigError { location, message });
    }
    for plugin in plugins.plugins() {
        for problem in plugin.capabilities.problems() {
            let location = config.location_of_capability(&plugin.name, &problem.key);
            complaints.push(ConfigError {
                location,
                message: format!("plugin `{}`: {}", plugin.name, problem.message),
            });
        }
    }
    for (name, job) in &config.jobs {
        // A plugin that could not be loaded has its own complaint.
        let Some(plugin) = plugins.get(&job.plugin) else { continue };
        match plugin.handler(&job.handler) {
            Err(message) => {
                let location = config.location_of_job(name, JobKey::Handler);
                let rolled_back = rolled_back(plugin);
                let message = format!("job `{name}`: {message}{rolled_back}");
                complaints.push(ConfigError { location, message });
            }
            Ok(handler) => {
                if let Err(error) = handler.check_args(&job.args) {
                    let rolled_back = rolled_back(plugin);
                    let errors = config.args_errors(name, &error);
                    let errors = errors.iter().map(|error| ConfigError {
                        location: error.location.clone(),
                        message: format!("{}{rolled_back}", error.message),
                    });
                    args_complaints.append(ConfigErrors::new(errors.collect()));
                }
            }
        }
    }
    let mut complaints = ConfigErrors::new(complaints);
    complaints.append(args_complaints);
    complaints
}

/// Where a plugin is not what the configuration names, what is wrong with it may be due to that.
fn rolled_back(plugin: &Plugin) -> String {
    let Plugin { name, digest, configured, .. } = plugin;
    if digest == configured {
        return String::new();
    }
    format!(
        "; the plugin is rolled back to {digest}, while the configuration names {configured}: to run that one, end \
         the rollback with `innkeeper plugin reload {name} --end-rollback`"
    )
}

/// What an operator should know of a configuration that is in order: jobs that fire all at once,
/// clock changes that touch a job, concurrency that nothing can serve. In the order of the file.
#[must_use]
pub fn warnings(config: &Config, now: Timestamp) -> ConfigErrors {
    let mut warnings = capacity::warnings(config);
    warnings.extend(forecast::bunches(config, now));
    warnings.extend(forecast::clock_changes(config, now));
    ConfigErrors::new(warnings)
}

/// `a`, `b` and 3 others.
fn named(names: &[&Name]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match (names.len().saturating_sub(SHOWN), shown.as_slice()) {
        (0, [most @ .., last]) if !most.is_empty() => format!("{} and {last}", most.join(", ")),
        (0, _) => shown.join(", "),
        (1, _) => format!("{} and 1 other", shown.join(", ")),
        (rest, _) => format!("{} and {rest} others", shown.join(", ")),
    }
}
