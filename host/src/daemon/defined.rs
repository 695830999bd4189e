//! What a host tells the store of itself, and what the log tells of that.

use crate::config::Config;
use crate::engine::registry::{Registry, Replacements};
use crate::job::Job;
use crate::plugin::Digest;
use crate::policy::Queue;
use crate::store::{Defined, Store, StoreError};

/// The jobs and queues of a configuration.
pub(super) fn jobs_and_queues(config: &Config) -> (Vec<Job>, Vec<Queue>) {
    (config.jobs.values().cloned().collect(), config.queues.values().cloned().collect())
}

/// What operators want to run in place of what.
pub(super) async fn replacements(store: &Store) -> Result<Replacements, StoreError> {
    let rollbacks = store.rollbacks().await?;
    let replacement = |rollback: crate::store::Rollback| {
        Some((
            rollback.plugin,
            (Digest::parse(&rollback.replaces).ok()?, Digest::parse(&rollback.component).ok()?),
        ))
    };
    Ok(rollbacks.into_iter().filter_map(replacement).collect())
}

/// Says which plugins are not what the configuration names.
pub(super) fn tell_replaced(plugins: &Registry) {
    for plugin in plugins.plugins().filter(|plugin| plugin.digest != plugin.configured) {
        tracing::warn!(
            plugin = %plugin.name, component = %plugin.digest, instead_of = %plugin.configured,
            "the plugin is rolled back: it is not what the configuration names"
        );
    }
}

/// Says what has become of jobs and queues.
pub(super) fn tell_defined(defined: &Defined, owner: &str) {
    for queue in &defined.queues {
        tracing::info!(%queue, "the queue's weight and limits are those of the configuration now");
    }
    let sync = &defined.jobs;
    for job in &sync.retired {
        tracing::info!(%job, "retired: the configuration no longer names it");
    }
    for (job, from) in &sync.taken_over {
        tracing::warn!(
            %job, %from, to = owner,
            "taken over: another host's configuration named this job as well. Where hosts share a file, give \
             them the same `owner` in [host]"
        );
    }
    if sync.skipped > 0 {
        tracing::info!(
            records = sync.skipped,
            "fires of schedules that are no more were recorded as skipped"
        );
    }
}
