//! What is wrong with a configuration once its components are known: handlers that are not
//! there, arguments that do not fit.

use crate::config::{Config, ConfigError, ConfigErrors, JobKey};
use crate::engine::registry::{PluginProblem, Registry};

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
    for (name, job) in &config.jobs {
        // A plugin that could not be loaded has its own complaint.
        let Some(plugin) = plugins.get(&job.plugin) else { continue };
        match plugin.handler(&job.handler) {
            Err(message) => {
                let location = config.location_of_job(name, JobKey::Handler);
                complaints.push(ConfigError { location, message: format!("job `{name}`: {message}") });
            }
            Ok(handler) => {
                if let Err(error) = handler.check_args(&job.args) {
                    args_complaints.append(config.args_errors(name, &error));
                }
            }
        }
    }
    let mut complaints = ConfigErrors::new(complaints);
    complaints.append(args_complaints);
    complaints
}
