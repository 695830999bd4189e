//! Plugins as the operator and the store know them: files, digests, and what they say of
//! themselves. How they are compiled and called is `crate::runtime`'s business.

pub mod kept;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// A component's file, read once, so that what is compiled is what the digest is of.
pub struct Source {
    /// Where it was read from.
    pub path: PathBuf,
    /// Of the bytes.
    pub digest: Digest,
    /// The file.
    pub bytes: Vec<u8>,
}

/// The SHA-256 of a component, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(String);

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

/// Why a component's file could not be read.
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
}

impl Source {
    /// Reads a component's file.
    ///
    /// # Errors
    /// Where it is not there or cannot be read.
    pub fn read(path: &Path) -> Result<Self, SourceError> {
        let bytes = std::fs::read(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => SourceError::Missing(path.to_owned()),
            _ => SourceError::Unreadable { path: path.to_owned(), error },
        })?;
        Ok(Self { path: path.to_owned(), digest: Digest::of(&bytes), bytes })
    }
}

impl Digest {
    /// The digest of a component's bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let hex = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self(format!("sha256:{hex}"))
    }

    /// A digest that was written down. `None` where it is no digest.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        let is_hex = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_hex.then(|| Self(text.to_owned()))
    }

    /// As text, with its prefix.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
    fn a_digest_names_its_algorithm() {
        // The SHA-256 of the empty message, FIPS 180-4.
        assert_eq!(
            Digest::of(b"").as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

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
}
