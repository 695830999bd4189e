//! What a plugin may do beyond computing: the grants of `[plugins.NAME]` besides its databases and
//! jobs, and the rules that its requests are held against.
//!
//! Pure. What is granted is opened and enforced in `crate::interfaces`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub mod address;
pub mod rule;

use address::Network;
use rule::{Rule, Site};

/// The grants of one plugin. Nothing is granted by default.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Requests that it may send; `None` for none at all.
    pub http: Option<HttpGrant>,
    /// Its environment variables.
    pub env: BTreeMap<String, String>,
    /// What the host puts into headers of its requests, by name.
    pub secrets: BTreeMap<String, SecretGrant>,
    /// Folders that it sees.
    pub files: Vec<FolderGrant>,
    /// What these must not reach; empty where there are none.
    pub guarded: Arc<[Guarded]>,
}

/// A file or folder of the host's, or of another grant's, that no folder of `files` may give away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// On the host.
    pub path: PathBuf,
    /// What it is, in the words of the file: paths may have something of the environment in them.
    pub what: String,
    /// Whether it must not be read either.
    pub unreadable: bool,
}

/// `[plugins.NAME.http]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGrant {
    /// A request is sent where one of these allows it.
    pub allow: Vec<Rule>,
    /// Addresses that names may lead to although they are not public.
    pub addresses: Vec<Network>,
    /// A PEM file with certificates that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// What one request may take.
    pub limits: HttpLimits,
}

/// What requests may take of time and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// From the request to a connection: name, address, TLS.
    pub connect_timeout: Duration,
    /// From the connection to the head of the answer.
    pub first_byte_timeout: Duration,
    /// From the request to the end of the answer.
    pub timeout: Duration,
    /// Bytes of a request's body.
    pub max_request_bytes: u64,
    /// Bytes of an answer's body.
    pub max_response_bytes: u64,
    /// Requests that one execution may have open at a time.
    pub max_open_requests: u32,
}

impl Default for HttpLimits {
    /// An answer that takes longer than a minute, or has more than 8 MiB, is rarely what a handler
    /// with 64 MiB of memory was meant to wait for.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(30),
            timeout: Duration::from_secs(60),
            max_request_bytes: 8 << 20,
            max_response_bytes: 8 << 20,
            max_open_requests: 8,
        }
    }
}

/// One of `secrets`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretGrant {
    /// Where it comes from.
    pub source: SecretSource,
    /// Where it may be sent to, of what `http` grants; empty for anywhere of that over TLS.
    pub hosts: Vec<Site>,
}

/// Where a secret comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The configuration, with `${VAR}` put in.
    Value(String),
    /// A file, read when the plugin is loaded.
    File(PathBuf),
}

impl Capabilities {
    /// The files that are read when the plugin is loaded: secrets, and certificates.
    pub fn files_read(&self) -> impl Iterator<Item = &Path> {
        let secrets = self.secrets.values().filter_map(|grant| match &grant.source {
            SecretSource::File(path) => Some(path.as_path()),
            SecretSource::Value(_) => None,
        });
        secrets.chain(self.http.iter().filter_map(|http| http.ca.as_deref()))
    }
}

impl fmt::Debug for SecretGrant {
    /// Without the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretGrant").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl fmt::Debug for Capabilities {
    /// Without the values of `env` and `secrets`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capabilities")
            .field("http", &self.http)
            .field("env", &self.env.keys())
            .field("secrets", &self.secrets)
            .field("files", &self.files)
            .finish()
    }
}

/// One of `files`: a folder, and where the plugin sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderGrant {
    /// On the host, its path resolved.
    pub path: PathBuf,
    /// In the guest: absolute.
    pub seen_as: String,
    /// Whether the guest may change anything in it.
    pub writable: bool,
}

impl fmt::Display for FolderGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.writable { "read-write" } else { "read-only" };
        write!(f, "{} as {} ({access})", self.path.display(), self.seen_as)
    }
}

/// A part of the grants that can turn out wrong once the system has been asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CapabilityKey {
    /// A secret, by its name.
    Secret(String),
    /// A folder, by where the guest sees it.
    Folder(String),
    /// The requests.
    Http,
    /// The certificates for requests.
    Ca,
}

/// What a plugin reads as its configuration to get the placeholder of a secret.
#[must_use]
pub fn config_key(secret: &str) -> String {
    format!("secrets.{secret}")
}

/// Whether a text can stand in a header: no control characters but the tab, and nothing that
/// could end the header (RFC 9110, 5.5).
#[must_use]
pub fn fits_header(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_grants_has_no_value_of_a_secret_or_a_variable() {
        let capabilities = Capabilities {
            env: BTreeMap::from([("TOKEN".to_owned(), "hunter2".to_owned())]),
            secrets: BTreeMap::from([(
                "key".to_owned(),
                SecretGrant { source: SecretSource::Value("hunter2".to_owned()), hosts: Vec::new() },
            )]),
            ..Capabilities::default()
        };
        let shown = format!("{capabilities:?}");
        assert!(shown.contains("TOKEN") && shown.contains("key") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_line_end_does_not_fit_a_header() {
        assert!(fits_header("Bearer \t~ü"));
        assert!(!fits_header("a\r\nb") && !fits_header("\0") && !fits_header("\u{7f}"));
    }
}
