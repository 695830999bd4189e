//! Where a plugin's component comes from, and by what it is known.
//!
//! Pure.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The SHA-256 of a component, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(String);

/// A text that is no [`Digest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 hexadecimal digits, as `innkeeper plugin inspect` shows it")]
pub struct InvalidDigest;

impl Digest {
    const PREFIX: &str = "sha256:";

    /// The digest of a component's bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let hex = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self(format!("{}{hex}", Self::PREFIX))
    }

    /// Reads a digest.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(text: &str) -> Result<Self, InvalidDigest> {
        let hex = text.strip_prefix(Self::PREFIX).ok_or(InvalidDigest)?;
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidDigest);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// As text, with its prefix.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hexadecimal digits alone.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.strip_prefix(Self::PREFIX).unwrap_or(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a component is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ComponentRef {
    /// A file, its path resolved.
    File(PathBuf),
    /// An artifact of a registry.
    Oci(OciRef),
}

impl From<PathBuf> for ComponentRef {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl fmt::Display for ComponentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Oci(reference) => reference.fmt(f),
        }
    }
}

/// `oci://registry/name:tag`, `oci://registry/name@sha256:…`, or both, where the digest decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciRef {
    /// Its host, and its port if it has one.
    pub registry: String,
    /// The name within the registry.
    pub repository: String,
    /// What may be another artifact tomorrow.
    pub tag: Option<String>,
    /// The digest of the manifest, which pins the artifact.
    pub manifest: Option<Digest>,
}

/// Why a text is no [`OciRef`]. The text is no part of it: somebody may have put a password there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOciRef {
    /// No host before the first `/`, or no name after it.
    #[error("must name a registry and a component in it, as in `oci://registry.example/team/plugin:1.0`")]
    NoName,
    /// A login in the reference.
    #[error(
        "must not have a login: write the user and the password under [registries.\"registry.example\"], \
         where they are not shown"
    )]
    Login,
    /// The host is none.
    #[error("names a registry that is no host, such as `registry.example` or `localhost:5000`")]
    Registry,
    /// A name that no registry has.
    #[error(
        "names a component in a way that registries do not: a name has small letters, digits, `.`, `_`, `-` \
         and `/`"
    )]
    Repository,
    /// Neither tag nor digest.
    #[error(
        "must say which version: a tag, as in `oci://registry.example/team/plugin:1.0`, or a digest, as in \
         `…/plugin@sha256:…`"
    )]
    NoVersion,
    /// A tag that is none.
    #[error(
        "has a tag that no registry has: letters, digits, `_`, `.` and `-`, at most 128, none of the latter \
         two first"
    )]
    Tag,
    /// What follows `@` is no digest.
    #[error("must have `sha256:` and 64 hexadecimal digits after its `@`")]
    Digest,
}

impl OciRef {
    /// What such a reference begins with.
    pub const SCHEME: &str = "oci://";

    /// Reads what follows [`Self::SCHEME`]. The registry is always named: there is none that is
    /// meant by default.
    ///
    /// # Errors
    /// See [`InvalidOciRef`].
    pub fn parse(text: &str) -> Result<Self, InvalidOciRef> {
        let (registry, rest) = text.split_once('/').ok_or(InvalidOciRef::NoName)?;
        if registry.contains('@') {
            return Err(InvalidOciRef::Login);
        }
        if !is_registry(registry) {
            return Err(InvalidOciRef::Registry);
        }
        let (rest, manifest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest).map_err(|_| InvalidOciRef::Digest)?)),
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (rest, None),
        };
        if repository.is_empty() {
            return Err(InvalidOciRef::NoName);
        }
        if !is_repository(repository) {
            return Err(InvalidOciRef::Repository);
        }
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(InvalidOciRef::Tag);
        }
        if tag.is_none() && manifest.is_none() {
            return Err(InvalidOciRef::NoVersion);
        }
        Ok(Self { registry: registry.to_owned(), repository: repository.to_owned(), tag, manifest })
    }
}

impl fmt::Display for OciRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}/{}", Self::SCHEME, self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(manifest) = &self.manifest {
            write!(f, "@{manifest}")?;
        }
        Ok(())
    }
}

/// A host or an address, and a port perhaps.
#[must_use]
pub fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address has colons of its own, in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_is_fine = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let host_is_fine = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<core::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    port_is_fine && host_is_fine
}

/// This machine itself, where nobody can listen in on what is not encrypted.
#[must_use]
pub fn is_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => registry,
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || host.parse::<core::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The distribution specification's grammar of a name: <https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests>.
fn is_repository(text: &str) -> bool {
    let inner = |part: &str| {
        let ends_well = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends_well(part.chars().next())
            && ends_well(part.chars().next_back())
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))
            && !part.contains("..")
    };
    text.len() <= 255 && text.split('/').all(inner)
}

fn is_tag(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// What it takes to ask a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAccess {
    /// Who asks, and the password or token.
    pub login: Option<(String, String)>,
    /// Without TLS. `None`: only where the registry is this machine itself.
    pub insecure: Option<bool>,
}

impl fmt::Debug for RegistryAccess {
    /// Without the password, and without the user, which may be part of a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAccess")
            .field("login", &self.login.as_ref().map(|_| "…"))
            .field("insecure", &self.insecure)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_are_read_and_written_alike() {
        for text in [
            "oci://registry.example/plugin:1.0".to_owned(),
            "oci://localhost:5000/team/plugin_a/b.c-d:_x".to_owned(),
            "oci://[::1]:5000/plugin:1".to_owned(),
            "oci://[::1]/plugin:1".to_owned(),
            format!("oci://127.0.0.1:5000/plugin@sha256:{HEX}"),
            format!("oci://registry.example/plugin:1.0@sha256:{HEX}"),
        ] {
            let parsed = OciRef::parse(text.strip_prefix(OciRef::SCHEME).unwrap());
            assert_eq!(parsed.map(|parsed| parsed.to_string()), Ok(text));
        }
    }

    #[test]
    fn what_is_no_reference_is_told_why() {
        use InvalidOciRef::{Digest, Login, NoName, NoVersion, Registry, Repository, Tag};
        for (text, why) in [
            ("plugin:1.0", NoName),
            ("registry.example/", NoName),
            ("registry.example/:1", NoName),
            ("me:secret@registry.example/plugin:1", Login),
            ("/plugin:1", Registry),
            ("registry..example/plugin:1", Registry),
            ("registry.example:0/plugin:1", Registry),
            ("registry.example:99999/plugin:1", Registry),
            ("a b/plugin:1", Registry),
            ("[::zz]/plugin:1", Registry),
            ("registry.example/Plugin:1", Repository),
            ("registry.example/team//plugin:1", Repository),
            ("registry.example/../plugin:1", Repository),
            ("registry.example/plugin", NoVersion),
            ("registry.example/plugin:", Tag),
            ("registry.example/plugin:-1", Tag),
            ("registry.example/plugin:1:2", Tag),
            ("registry.example/plugin@sha256:12", Digest),
            ("registry.example/plugin:1@", Digest),
        ] {
            assert_eq!(OciRef::parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn a_digest_names_its_algorithm() {
        // The SHA-256 of the empty message, FIPS 180-4.
        assert_eq!(super::Digest::of(b"").as_str(), format!("sha256:{HEX}"));
    }

    #[test]
    fn a_digest_is_read_whatever_the_case_of_its_digits() {
        let digest = Digest::parse(&format!("sha256:{}", HEX.to_uppercase())).unwrap();
        assert_eq!((digest.as_str(), digest.hex()), (&*format!("sha256:{HEX}"), HEX));
        for text in ["", HEX, "sha256:", "sha256:12", "sha512:12"] {
            assert_eq!(Digest::parse(text), Err(InvalidDigest), "{text}");
        }
        let not_hex = format!("sha256:{}", "g".repeat(64));
        assert_eq!(Digest::parse(&not_hex), Err(InvalidDigest));
    }

    #[test]
    fn this_machine_itself_is_known_by_all_its_names() {
        for registry in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000", "[::1]"]
        {
            assert!(is_loopback(registry), "{registry}");
        }
        for registry in ["registry.example", "10.0.0.1:5000", "localhost.example", "[fe80::1]:5000"] {
            assert!(!is_loopback(registry), "{registry}");
        }
    }

    #[test]
    fn a_login_is_never_shown() {
        let login = Some(("me".to_owned(), "hunter2".to_owned()));
        let shown = format!("{:?}", RegistryAccess { login, insecure: None });
        assert!(!shown.contains("hunter2") && !shown.contains("me\""), "{shown}");
    }
}
