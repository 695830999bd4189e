//! Whether a plugin has reached its limit on the hosts. The store does not know of that limit: it is taken
//! from the configuration that the command line was given.

use std::collections::BTreeMap;

use crate::job::Name;
use crate::store::HostRecord;

/// How many executions of a job's plugin may run on a host, and how many do.
pub(super) struct PluginLook {
    /// `limits.concurrency` of this configuration.
    pub(super) limit: u32,
    /// By host.
    pub(super) running: BTreeMap<String, u64>,
}

impl PluginLook {
    /// Why nothing more of the plugin starts on these hosts; none where one of them has room.
    pub(super) fn reached(&self, plugin: &Name, hosts: &[&HostRecord]) -> Option<String> {
        let running = |host: &HostRecord| self.running.get(&host.host).copied().unwrap_or(0);
        if hosts.is_empty() || hosts.iter().any(|host| running(host) < u64::from(self.limit)) {
            return None;
        }
        let told: Vec<String> = hosts
            .iter()
            .take(super::NAMED)
            .map(|host| format!("`{}` ({})", host.host, running(host)))
            .collect();
        Some(format!(
            "plugin `{plugin}` runs no more than {} at once on each host (`limits.concurrency` in this \
             configuration), and so many run: {}",
            self.limit,
            told.join(", ")
        ))
    }
}
