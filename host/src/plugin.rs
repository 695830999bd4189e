//! Plugins as the operator and the store know them: files, registries, digests, and what they
//! say of themselves. How they are compiled and called is `crate::runtime`'s business.

pub mod kept;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::component::{ComponentRef, Digest};
use crate::component::{OciRef, RegistryAccess};

mod cache;
mod docker;
mod file;
mod oci;

use cache::Cache;

/// Bytes of a component that this host takes in. The largest in use, Python's with its
/// libraries, have some tens of millions.
pub const MOST_BYTES: u64 = 128 << 20;

/// A component, read once, so that what is compiled is what the digest is of.
pub struct Source {
    /// Where it came from, as the configuration has it.
    pub origin: String,
    /// Of the bytes.
    pub digest: Digest,
    /// The digest of the manifest that named it, where it came from a registry by now.
    pub manifest: Option<Digest>,
    /// The component.
    pub bytes: Bytes,
}

/// From where components are taken: files, registries, and what has been fetched from them
/// before.
pub struct Sources {
    cache: Option<Arc<Cache>>,
    registries: BTreeMap<String, RegistryAccess>,
}

/// What a plugin says of one of its handlers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Handler {
    /// Unique within the plugin.
    pub name: String,
    /// One line for people.
    pub summary: String,
    /// JSON Schema of its arguments; none accepts any JSON.
    pub args_schema: Option<Value>,
}

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such file.
    #[error("there is no file {}; build the plugin first, or mend `component`", .0.display())]
    Missing(PathBuf),
    /// It is there and cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A folder, a pipe, a device.
    #[error("{} is not a file: `component` names the file that the build has left", .0.display())]
    NotAFile(PathBuf),
    /// More than this host takes in.
    #[error(
        "{origin} has {bytes} bytes, and at most {MOST_BYTES} (128 MiB) are loaded; build it for release, and \
         without debugging information"
    )]
    TooLarge {
        /// Where it is.
        origin: String,
        /// How many it has.
        bytes: u64,
    },
    /// It is not the one that the configuration asks for.
    #[error(
        "{origin} is another component than the one that `digest` allows: it is {found}, and `digest` is \
         {wanted}; if the new one is meant, write its digest"
    )]
    WrongDigest {
        /// Where it is.
        origin: String,
        /// What the configuration has.
        wanted: Digest,
        /// What was found.
        found: Digest,
    },
    /// The registry did not answer as it should, and may another time.
    #[error("{reference} could not be fetched: {problem}")]
    Unreachable {
        /// The artifact.
        reference: String,
        /// What went wrong, and what to do.
        problem: String,
    },
    /// The registry has no such component, or does not give it.
    #[error("{reference} {problem}")]
    Refused {
        /// The artifact.
        reference: String,
        /// The end of a sentence.
        problem: String,
    },
}

impl Source {
    /// Reads a component's file.
    ///
    /// # Errors
    /// Where it is not there, cannot be read or is too large.
    pub fn read(path: &Path) -> Result<Self, SourceError> {
        let bytes = file::read(path)?;
        Ok(Self { origin: path.display().to_string(), digest: Digest::of(&bytes), manifest: None, bytes })
    }

    fn pinned(self, pin: Option<&Digest>) -> Result<Self, SourceError> {
        match pin {
            Some(pin) if *pin != self.digest => {
                Err(SourceError::WrongDigest { origin: self.origin, wanted: pin.clone(), found: self.digest })
            }
            _ => Ok(self),
        }
    }
}

impl Sources {
    /// What is fetched from registries is kept in `data_dir`.
    #[must_use]
    pub fn new(data_dir: &Path, registries: &BTreeMap<String, RegistryAccess>) -> Self {
        Self { cache: Some(Arc::new(Cache::new(data_dir.join("fetched")))), registries: registries.clone() }
    }

    /// Keeps nothing.
    #[must_use]
    pub fn without_cache(registries: &BTreeMap<String, RegistryAccess>) -> Self {
        Self { cache: None, registries: registries.clone() }
    }

    /// Reads or fetches a component. One with another digest than `pin` is refused; one that
    /// was fetched before and is pinned, by `pin` or by the reference itself, is taken from
    /// where it is kept, and no registry is asked.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn fetch(&self, component: &ComponentRef, pin: Option<&Digest>) -> Result<Source, SourceError> {
        match component {
            ComponentRef::File(path) => {
                let owned = path.clone();
                let read = tokio::task::spawn_blocking(move || Source::read(&owned)).await;
                let failed = |error: tokio::task::JoinError| SourceError::Unreadable {
                    path: path.clone(),
                    error: std::io::Error::other(error),
                };
                read.map_err(failed)??.pinned(pin)
            }
            ComponentRef::Oci(reference) => self.fetch_artifact(reference, pin).await,
        }
    }

    async fn fetch_artifact(&self, reference: &OciRef, pin: Option<&Digest>) -> Result<Source, SourceError> {
        let origin = reference.to_string();
        let source =
            |digest: Digest, manifest, bytes| Source { origin: origin.clone(), digest, manifest, bytes };
        let not_asked = |digest: &Digest| {
            tracing::info!(%reference, %digest, "pinned and fetched before: the registry was not asked");
        };
        if let Some(pin) = pin
            && let Some(bytes) = self.component(pin).await
        {
            not_asked(pin);
            return Ok(source(pin.clone(), reference.manifest.clone(), bytes));
        }
        let known = match &reference.manifest {
            Some(digest) => self
                .manifest(digest)
                .await
                .and_then(|manifest| oci::Artifact::read(reference, digest.clone(), &manifest).ok()),
            None => None,
        };
        if let Some(artifact) = &known
            && pin.is_none_or(|pin| *pin == artifact.component)
            && let Some(bytes) = self.component(&artifact.component).await
        {
            not_asked(&artifact.component);
            return Ok(source(artifact.component.clone(), reference.manifest.clone(), bytes));
        }
        let client = oci::Client::new(reference, self.registries.get(&reference.registry))?;
        let artifact = match known {
            Some(artifact) => artifact,
            None => {
                let (artifact, manifest) = client.artifact(reference).await?;
                let digest = artifact.manifest.clone();
                self.with_cache(move |cache| cache.keep_manifest(&digest, &manifest)).await;
                artifact
            }
        };
        // Before it is downloaded.
        if let Some(pin) = pin.filter(|pin| **pin != artifact.component) {
            return Err(SourceError::WrongDigest { origin, wanted: pin.clone(), found: artifact.component });
        }
        if let Some(bytes) = self.component(&artifact.component).await {
            return Ok(source(artifact.component, Some(artifact.manifest), bytes));
        }
        let bytes = client.component(reference, &artifact).await?;
        let (digest, to_keep) = (artifact.component.clone(), bytes.clone());
        self.with_cache(move |cache| cache.keep_component(&digest, &to_keep)).await;
        Ok(source(artifact.component, Some(artifact.manifest), bytes))
    }

    /// A component that was fetched before.
    async fn component(&self, digest: &Digest) -> Option<Bytes> {
        let digest = digest.clone();
        self.with_cache(move |cache| cache.component(&digest)).await?
    }

    /// A manifest that was fetched before.
    async fn manifest(&self, digest: &Digest) -> Option<Bytes> {
        let digest = digest.clone();
        self.with_cache(move |cache| cache.manifest(&digest)).await?
    }

    /// Off the async threads: a file system may take its time, and a component has many bytes.
    async fn with_cache<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cache) -> T + Send + 'static,
    ) -> Option<T> {
        let cache = self.cache.clone()?;
        tokio::task::spawn_blocking(move || work(&cache)).await.ok()
    }
}

/// Handlers as the store keeps them.
#[must_use]
pub fn to_descriptions(handlers: &[Handler]) -> Value {
    serde_json::to_value(handlers).unwrap_or(Value::Null)
}

/// The handlers of what the store keeps.
///
/// # Errors
/// Where another version of the host wrote what this one cannot read.
pub fn from_descriptions(descriptions: Value) -> Result<Vec<Handler>, String> {
    serde_json::from_value(descriptions)
        .map_err(|error| format!("the store's description of the plugin cannot be read: {error}"))
}

/// Finds a handler by name.
///
/// # Errors
/// A sentence that names the handlers there are.
pub fn find_handler<'a>(handlers: &'a [Handler], plugin: &str, name: &str) -> Result<&'a Handler, String> {
    handlers.iter().find(|handler| handler.name == name).ok_or_else(|| {
        let names = handlers.iter().map(|handler| handler.name.as_str());
        let hint = crate::suggest::hint(name, names.clone());
        let known = names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        format!("plugin `{plugin}` has no handler `{name}`{hint} (it has {known})")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_that_is_not_there_is_named_with_those_that_are() {
        let handlers = ["cleanup", "prune"].map(|name| Handler {
            name: name.to_owned(),
            summary: String::new(),
            args_schema: None,
        });
        assert_eq!(find_handler(&handlers, "p", "prune").unwrap().name, "prune");
        assert_eq!(
            find_handler(&handlers, "p", "cleanp").unwrap_err(),
            "plugin `p` has no handler `cleanp`; did you mean `cleanup`? (it has `cleanup`, `prune`)"
        );
    }

    #[test]
    fn a_file_that_is_not_there_says_what_to_do() {
        let error = Source::read(Path::new("/nowhere/p.wasm")).err().unwrap();
        assert!(error.to_string().contains("/nowhere/p.wasm"), "{error}");
    }

    #[tokio::test]
    async fn a_component_that_is_not_the_pinned_one_is_refused_with_both_digests() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.wasm");
        std::fs::write(&path, b"one").unwrap();
        let sources = Sources::new(folder.path(), &BTreeMap::new());
        let component = ComponentRef::File(path.clone());
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        assert_eq!(sources.fetch(&component, Some(&one)).await.unwrap().digest, one);
        std::fs::write(&path, b"two").unwrap();
        let error = sources.fetch(&component, Some(&one)).await.err().unwrap().to_string();
        assert!(error.contains(one.as_str()) && error.contains(two.as_str()), "{error}");
    }
}
