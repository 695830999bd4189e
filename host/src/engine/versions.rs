//! The plugins that run, and those that ran until a moment ago.
//!
//! START puts the component of each attempt on record, and that one is to run, whatever has changed
//! between the record and the call. So the next plugins are found here before the store knows of them,
//! and the ones before as long as a START may be under way that has recorded them.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::registry::{Plugin, Registry};
use crate::job::Name;

/// The plugins of a host, which change while it runs.
pub(super) struct Versions {
    inner: RwLock<Inner>,
    /// Held by whoever writes the plugins of the host session: a session is registered with those that
    /// run, or the next ones become its own, but not both at once.
    pub(super) writing: tokio::sync::Mutex<()>,
}

struct Inner {
    current: Arc<Registry>,
    /// The store may know of them already.
    next: Option<Arc<Registry>>,
    /// The newest last.
    before: Vec<Arc<Registry>>,
    /// A START is under way.
    is_claiming: bool,
}

/// A START is under way until this is dropped.
pub(super) struct Claiming<'a>(&'a Versions);

impl Versions {
    pub(super) fn new(plugins: Registry) -> Self {
        let current = Arc::new(plugins);
        let inner = Inner { current, next: None, before: Vec::new(), is_claiming: false };
        Self { inner: RwLock::new(inner), writing: tokio::sync::Mutex::default() }
    }

    /// Those that executions start with.
    pub(super) fn current(&self) -> Arc<Registry> {
        self.read().current.clone()
    }

    /// From here on, what START has recorded is found until the claim is dropped.
    pub(super) fn claim(&self) -> Claiming<'_> {
        self.write().is_claiming = true;
        Claiming(self)
    }

    /// From here on, executions find these, if START has recorded them.
    pub(super) fn prepare(&self, next: Arc<Registry>) {
        self.write().next = Some(next);
    }

    /// The next ones are on record.
    pub(super) fn take_over(&self) {
        let mut inner = self.write();
        let Some(next) = inner.next.take() else { return };
        let before = std::mem::replace(&mut inner.current, next);
        let before = inner.is_claiming.then_some(before);
        inner.before.extend(before);
    }

    /// Nothing was recorded of the next ones, and nothing will be.
    pub(super) fn discard(&self) {
        let discarded = self.write().next.take();
        // Not under the lock: connections may be closed with them.
        drop(discarded);
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claiming<'_> {
    /// The plugin with the component that START has recorded.
    pub(super) fn find(&self, plugin: &Name, component: &str) -> Option<Arc<Plugin>> {
        let inner = self.0.read();
        let newest_first = [&inner.current].into_iter().chain(&inner.next).chain(inner.before.iter().rev());
        newest_first
            .filter_map(|plugins| plugins.get(plugin))
            .find(|plugin| plugin.digest.as_str() == component)
            .cloned()
    }
}

/// Whatever START has recorded was looked for, and the next one records what is on record by then.
impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        let before = {
            let mut inner = self.0.write();
            inner.is_claiming = false;
            std::mem::take(&mut inner.before)
        };
        drop(before);
    }
}
