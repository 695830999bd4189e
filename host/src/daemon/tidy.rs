//! What a host keeps of the components that it has run: those that are on record, and of these the
//! last versions.

use std::collections::HashSet;

use crate::engine::registry::Registry;
use crate::plugin::Digest;
use crate::plugin::kept::{Draft, Kept};
use crate::store::{Store, StoreError, VERSIONS_KEPT};

/// Keeps what is on record by now.
pub(super) async fn keep(drafts: Vec<Draft>) {
    let kept = tokio::task::spawn_blocking(move || {
        for draft in drafts {
            if let Err(error) = draft.keep() {
                tracing::warn!(%error, "a component cannot be kept to go back to");
            }
        }
    });
    if let Err(error) = kept.await {
        tracing::warn!(%error, "components cannot be kept to go back to");
    }
}

/// Removes the components that nobody goes back to any more, and those that never came on record.
pub(super) async fn remove_superseded(store: &Store, kept: &Kept, plugins: &Registry) {
    let folder = kept.clone();
    let old = match tokio::task::spawn_blocking(move || folder.old()).await {
        Ok(Ok(old)) => old,
        Ok(Err(error)) => return tracing::warn!(%error, "kept components cannot be looked at"),
        Err(error) => return tracing::warn!(%error, "kept components cannot be looked at"),
    };
    let mut superseded = match superseded(store, old).await {
        Ok(superseded) => superseded,
        Err(error) => return tracing::debug!(%error, "old components are removed another time"),
    };
    for plugin in plugins.plugins() {
        superseded.remove(&plugin.digest);
        superseded.remove(&plugin.configured);
    }
    let folder = kept.clone();
    let removed = tokio::task::spawn_blocking(move || {
        for digest in superseded {
            match folder.remove(&digest) {
                Ok(true) => tracing::debug!(%digest, "an old component was removed"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%digest, %error, "an old component cannot be removed"),
            }
        }
    });
    if let Err(error) = removed.await {
        tracing::warn!(%error, "old components cannot be removed");
    }
}

/// Those that the store knows to be of no use, and of the old ones those that it does not know.
async fn superseded(store: &Store, old: Vec<Digest>) -> Result<HashSet<Digest>, StoreError> {
    let superseded = store.superseded_components(VERSIONS_KEPT).await?;
    let mut superseded: HashSet<Digest> =
        superseded.iter().filter_map(|digest| Digest::parse(digest).ok()).collect();
    for digest in old {
        if !superseded.contains(&digest) && store.component_descriptions(digest.as_str()).await?.is_none() {
            superseded.insert(digest);
        }
    }
    Ok(superseded)
}
