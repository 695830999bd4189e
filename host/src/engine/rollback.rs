//! Whether an older version of a plugin can do what is asked of the present one.

use crate::args::ArgsSchema;
use crate::job::{Job, Name};
use crate::plugin;
use crate::store::{Store, StoreError};

/// The jobs that a component of the plugin cannot run, each with the reason.
///
/// # Errors
/// Where the store fails, or does not know the component.
pub async fn unfit_jobs(store: &Store, plugin: &Name, component: &str) -> Result<Vec<String>, StoreError> {
    let descriptions = store.component_descriptions(component).await?;
    let descriptions =
        descriptions.ok_or_else(|| StoreError::Invalid(format!("the store has no component {component}")))?;
    let handlers = plugin::from_descriptions(descriptions).map_err(StoreError::Corrupt)?;
    let jobs = store.jobs().await?;
    let jobs = jobs.iter().filter(|record| record.retired_at.is_none() && record.job.plugin == *plugin);
    let unfit = |job: &Job| {
        let handler = match plugin::find_handler(&handlers, plugin.as_str(), &job.handler) {
            Ok(handler) => handler,
            Err(why) => return Some(why),
        };
        match ArgsSchema::compile(handler.args_schema.clone()?) {
            Ok(schema) => {
                schema.check(&job.args).err().map(|error| format!("its arguments do not fit: {error}"))
            }
            Err(error) => Some(error.to_string()),
        }
    };
    Ok(jobs
        .filter_map(|record| Some(format!("job `{}`: {}", record.job.name, unfit(&record.job)?)))
        .collect())
}
