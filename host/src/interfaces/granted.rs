//! What one plugin was granted besides databases and jobs, opened and ready to be used by each of
//! its executions.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use wasmtime_wasi::WasiCtxBuilder;

use super::http::{Resolve, SystemResolver};
use crate::capability::rule::{Site, Target};
use crate::capability::{
    Capabilities, CapabilityKey, FolderGrant, HttpGrant, SecretGrant, SecretSource, config_key, fits_header,
};
use crate::component::Digest;
use crate::config::Guards;
use crate::job::Name;

/// The grants of a plugin. It has no `Debug`, because it has secrets.
pub struct Granted {
    pub(super) plugin: String,
    pub(super) http: Option<HttpGrant>,
    /// None where no request goes over TLS.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Of the file of further certificates.
    ca: Option<Digest>,
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) secrets: Vec<Secret>,
    pub(super) files: Vec<FolderGrant>,
    /// What folders must not give away.
    guards: Guards,
    env: Vec<(String, String)>,
    problems: Vec<GrantProblem>,
}

/// What the host puts into a header, and what the guest writes there to have it.
pub(super) struct Secret {
    pub(super) name: String,
    /// Nobody can guess it, so nobody who has the guest put a text of theirs into a header gets
    /// the secret with it.
    pub(super) placeholder: String,
    pub(super) value: String,
    hosts: Vec<Site>,
}

/// A grant that cannot be used on this machine.
#[derive(Debug)]
pub struct GrantProblem {
    /// Which.
    pub key: CapabilityKey,
    /// Why, and what to do.
    pub message: String,
}

impl Granted {
    /// Opens what a plugin is granted. What cannot be opened is among [`Self::problems`], and is
    /// not granted.
    #[must_use]
    pub fn open(plugin: &Name, capabilities: &Capabilities) -> Self {
        let mut problems = Vec::new();
        let mut secrets = Vec::new();
        for (name, grant) in &capabilities.secrets {
            match Secret::open(name, grant) {
                Ok(secret) => secrets.push(secret),
                Err(message) => {
                    problems.push(GrantProblem { key: CapabilityKey::Secret(name.clone()), message })
                }
            }
        }
        let guards = Guards::look(&capabilities.guarded);
        for folder in &capabilities.files {
            if let Err(message) = check_folder(folder, &guards) {
                problems.push(GrantProblem { key: CapabilityKey::Folder(folder.seen_as.clone()), message });
            }
        }
        let tls = capabilities.http.as_ref().filter(|http| http.allow.iter().any(|rule| rule.is_https()));
        let tls = tls.and_then(|http| match tls_config(http.ca.as_deref()) {
            Ok(trust) => Some(trust),
            Err((key, message)) => {
                problems.push(GrantProblem { key, message });
                None
            }
        });
        let (tls, ca) = tls.map(|trust| (Arc::new(trust.config), trust.ca)).unzip();
        Self {
            plugin: plugin.to_string(),
            http: capabilities.http.clone(),
            tls,
            ca: ca.flatten(),
            resolver: Arc::new(SystemResolver),
            secrets,
            files: capabilities.files.clone(),
            guards,
            env: capabilities.env.clone().into_iter().collect(),
            problems,
        }
    }

    /// Nothing at all, as for a component that is only described.
    #[must_use]
    pub fn nothing() -> Self {
        let plugin = Name::new("describe").expect("`describe` has the form of a name");
        Self::open(&plugin, &Capabilities::default())
    }

    /// The plugin's name in the configuration.
    #[must_use]
    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// What could not be opened.
    #[must_use]
    pub fn problems(&self) -> &[GrantProblem] {
        &self.problems
    }

    /// Looks once more at what a folder is, just before it is opened: its path may lead to another one
    /// by now.
    pub(super) fn recheck(&self, folder: &FolderGrant) -> std::io::Result<()> {
        self.guards.problem(folder).map_or(Ok(()), |why| Err(std::io::Error::other(format!("it {why}"))))
    }

    /// True where the files that it was opened from say what they said for `other`, which has the
    /// same configuration: secrets, and whom to trust.
    #[must_use]
    pub fn is_as_open_as(&self, other: &Self) -> bool {
        let secrets = |granted: &Self| {
            granted
                .secrets
                .iter()
                .map(|secret| (secret.name.clone(), secret.value.clone()))
                .collect::<Vec<_>>()
        };
        self.ca == other.ca && secrets(self) == secrets(other)
    }

    /// What the guest reads as its configuration, for the host to put secrets in its place.
    pub fn placeholders(&self) -> impl Iterator<Item = (String, String)> {
        self.secrets.iter().map(|secret| (config_key(&secret.name), secret.placeholder.clone()))
    }

    /// Gives a guest its environment variables.
    pub fn set_env(&self, builder: &mut WasiCtxBuilder) {
        builder.envs(&self.env);
    }
}

impl Secret {
    fn open(name: &str, grant: &SecretGrant) -> Result<Self, String> {
        let value = match &grant.source {
            SecretSource::Value(value) => value.clone(),
            SecretSource::File(path) => read_secret(path)?,
        };
        let placeholder = format!("innkeeper-secret-{name}-{}", uuid::Uuid::new_v4().simple());
        Ok(Self { name: name.to_owned(), placeholder, value, hosts: grant.hosts.clone() })
    }

    /// Whether it may go where a request goes.
    pub(super) fn may_go_to(&self, target: &Target<'_>) -> bool {
        if self.hosts.is_empty() {
            target.is_confidential()
        } else {
            self.hosts.iter().any(|host| host.is_of(target))
        }
    }
}

/// The text of a file without the line end that editors put there.
fn read_secret(path: &Path) -> Result<String, String> {
    const LONGEST: u64 = 8 << 10;
    let told = |why: String| format!("the secret's file {} {why}", path.display());
    let about = std::fs::metadata(path).map_err(|error| told(format!("cannot be read: {error}")))?;
    if about.len() > LONGEST {
        return Err(told("is longer than 8 KiB, which no header is".to_owned()));
    }
    let text = std::fs::read(path).map_err(|error| told(format!("cannot be read: {error}")))?;
    let text = String::from_utf8(text).map_err(|_| told("is not UTF-8 text".to_owned()))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(told("is empty".to_owned()));
    }
    if !fits_header(text) {
        return Err(told(
            "has a line end or another control character in it, which no header can have".to_owned(),
        ));
    }
    Ok(text.to_owned())
}

fn check_folder(folder: &FolderGrant, guards: &Guards) -> Result<(), String> {
    let path = &folder.path;
    let told = |why: String| format!("the folder {} {why}", path.display());
    if let Some(why) = guards.problem(folder) {
        return Err(told(why));
    }
    // Reading its entries is what a guest needs of it at least.
    match std::fs::read_dir(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(told("is not there: make it, or mend `path`".to_owned()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            Err(told("is a file: `files` grants folders".to_owned()))
        }
        Err(error) => Err(told(format!("cannot be read: {error}"))),
    }
}

/// Whom the system trusts, read once: it is a file of some hundred certificates.
static SYSTEM_ROOTS: LazyLock<Vec<CertificateDer<'static>>> =
    LazyLock::new(|| rustls_native_certs::load_native_certs().certs);

/// Whom a plugin trusts.
struct Trust {
    config: ClientConfig,
    /// Of the file that was read for it.
    ca: Option<Digest>,
}

fn tls_config(ca: Option<&Path>) -> Result<Trust, (CapabilityKey, String)> {
    let mut read = None;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(SYSTEM_ROOTS.iter().cloned());
    if let Some(path) = ca {
        let wrong = |why: String| (CapabilityKey::Ca, format!("`ca` {} {why}", path.display()));
        let pem = std::fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| wrong(format!("is no PEM file: {error}")))?;
            roots
                .add(certificate)
                .map_err(|error| wrong(format!("has a certificate that is of no use: {error}")))?;
            found += 1;
        }
        read = Some(Digest::of(&pem));
        if found == 0 {
            return Err(wrong("has no certificate in it".to_owned()));
        }
    }
    if roots.is_empty() {
        let message = "no request can be sent over TLS, because this system trusts nobody: install its \
                       certificates (`ca-certificates`), or name those that are trusted in `ca`";
        return Err((CapabilityKey::Http, message.to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| (CapabilityKey::Http, format!("TLS cannot be used: {error}")))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Trust { config, ca: read })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn secret(source: SecretSource) -> Result<Secret, String> {
        Secret::open("key", &SecretGrant { source, hosts: Vec::new() })
    }

    #[test]
    fn a_file_that_says_something_else_by_now_is_told_from_one_that_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (key, ca) = (dir.path().join("key"), dir.path().join("ca.pem"));
        let certificate = include_str!("../../../tests/tests/capabilities/ca.pem");
        std::fs::write(&key, "hunter2\n").unwrap();
        std::fs::write(&ca, certificate).unwrap();
        let text = "[plugins.p]\ncomponent = \"p.wasm\"\nsecrets = { key = { file = \"key\" } }\n\
                    [plugins.p.http]\nallow = [\"GET https://api.example/\"]\nca = \"ca.pem\"\n";
        let config = Config::parse(text, &dir.path().join("innkeeper.toml"), &|_| None).unwrap();
        let capabilities = &config.plugins[&Name::new("p").unwrap()].capabilities;
        assert_eq!(capabilities.files_read().collect::<Vec<_>>(), [key.as_path(), ca.as_path()]);
        let open = || Granted::open(&Name::new("p").unwrap(), capabilities);
        let first = open();
        assert!(first.problems().is_empty(), "{:?}", first.problems());
        assert!(open().is_as_open_as(&first), "whatever the placeholders are");
        std::fs::write(&key, "hunter3\n").unwrap();
        let second = open();
        assert!(!second.is_as_open_as(&first));
        std::fs::write(&ca, format!("{certificate}\n{certificate}")).unwrap();
        assert!(!open().is_as_open_as(&second));
    }

    #[test]
    fn a_secrets_file_is_read_without_its_line_end_and_problems_never_show_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let of_file = |text: &str| {
            std::fs::write(&path, text).unwrap();
            secret(SecretSource::File(path.clone()))
        };
        assert_eq!(of_file("hunter2\n").unwrap().value, "hunter2");
        for (text, problem) in [("hunter2\nhunter3\n", "a line end"), ("\n", "is empty")] {
            let error = of_file(text).err().unwrap();
            assert!(error.contains(problem) && !error.contains("hunter"), "{error}");
        }
        let error = secret(SecretSource::File(dir.path().join("none"))).err().unwrap();
        assert!(error.contains("none cannot be read"), "{error}");
    }

    #[test]
    fn every_load_has_placeholders_of_its_own() {
        let one = || secret(SecretSource::Value("hunter2".to_owned())).unwrap().placeholder;
        let (a, b) = (one(), one());
        assert!(a != b && a.starts_with("innkeeper-secret-key-") && !a.contains("hunter2"));
    }
}
