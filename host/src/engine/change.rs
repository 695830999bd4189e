//! The plugins, jobs and queues of a running host become others: on record first, in one
//! transaction, and then in memory.

use std::sync::Arc;

use super::registry::Registry;
use super::{Engine, STORE_RETRY};
use crate::plugin;
use crate::store::{DefineError, Defined, Definitions, PluginDefinition, StoreError};

/// How often a store that fails is asked, before anything was written.
const TRIES: u32 = 3;

/// Why a host goes on with what it had.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is about to end.
    #[error("the host drains, and changes nothing any more")]
    Draining,
}

impl Registry {
    /// As the store keeps them.
    #[must_use]
    pub fn definitions(&self) -> Vec<PluginDefinition> {
        let definition = |plugin: &Arc<super::registry::Plugin>| PluginDefinition {
            name: plugin.name.clone(),
            component: plugin.digest.to_string(),
            descriptions: plugin::to_descriptions(&plugin.component.handlers),
            configured: plugin.configured.to_string(),
        };
        self.plugins().map(definition).collect()
    }
}

impl Engine {
    /// Has executions start with these plugins from now on, and the store know these jobs and queues;
    /// what runs ends with the plugin that it began with. All of it happens, or nothing.
    ///
    /// # Errors
    /// Where everything is as it was. Once something may have been written, this goes on until it is
    /// known: memory and store do not part.
    pub async fn change(
        &self,
        next: Registry,
        definitions: &Definitions<'_>,
    ) -> Result<Defined, ChangeError> {
        self.plugins.prepare(Arc::new(next));
        let (mut may_be_written, mut failures) = (false, 0);
        loop {
            let error = {
                let _writing = self.plugins.writing.lock().await;
                let session = Some(self.session.id());
                let definitions = Definitions { session, ..*definitions };
                let recorded = if may_be_written {
                    self.store.define_again(&definitions).await
                } else {
                    self.store.define(&definitions).await
                };
                match recorded {
                    Ok(defined) => {
                        self.plugins.take_over();
                        self.due.notify_one();
                        self.ready.notify_one();
                        return Ok(defined);
                    }
                    Err(error) => error,
                }
            };
            match error {
                DefineError::Unknown(error) => {
                    if !std::mem::replace(&mut may_be_written, true) {
                        tracing::warn!(%error, "the store may have the new definitions or not; writing them again");
                    }
                }
                // The session's own task registers a new one.
                DefineError::Refused(StoreError::SessionLost) => self.session.doubt(),
                DefineError::Refused(error) => {
                    failures += 1;
                    if !may_be_written && (failures == TRIES || !error.may_pass()) {
                        self.plugins.discard();
                        return Err(error.into());
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(STORE_RETRY) => {}
                // Nothing is started any more. The next plugins are not discarded: a START that is under
                // way may have recorded them.
                () = self.drain.cancelled() => return Err(ChangeError::Draining),
            }
        }
    }
}
