//! Components in registries, in the layout that `wkg oci push` makes
//! (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>): a manifest that
//! names one layer, which is the component's own bytes. So a component has one digest, from a
//! registry and from a file.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciManifest,
};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};

mod manifest;

use self::manifest::{NoManifest, Registry};
use super::{Digest, MOST_BYTES, SourceError, docker};
use crate::component::{OciRef, RegistryAccess, is_loopback};

/// What a layer with a component is called: by the specification, and by tools before it.
const LAYER_TYPES: &[&str] = &[
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];

const MANIFEST_TYPES: &[&str] = &[
    OCI_IMAGE_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
];

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two pieces of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(60);
const COMPONENT_TIMEOUT: Duration = Duration::from_secs(600);
/// How long to wait before each further try.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

const USER_AGENT: &str = concat!("innkeeper/", env!("CARGO_PKG_VERSION"));

/// What a manifest says.
pub(super) struct Artifact {
    /// The manifest's own digest.
    pub(super) manifest: Digest,
    /// The component's.
    pub(super) component: Digest,
    size: u64,
}

/// Asks one registry.
pub(super) struct Client {
    client: oci_client::Client,
    registry: Registry,
    auth: RegistryAuth,
}

/// What may go away by itself, and what will not.
enum Trouble {
    Passing(String),
    Lasting(String),
}

impl Artifact {
    /// Reads a manifest. Nothing is fetched for one that has no component that this host takes.
    pub(super) fn read(reference: &OciRef, manifest: Digest, text: &[u8]) -> Result<Self, SourceError> {
        let refuse = |problem: String| SourceError::Refused { reference: reference.to_string(), problem };
        let parsed = serde_json::from_slice(text)
            .map_err(|error| refuse(format!("has a manifest that cannot be read: {error}")))?;
        let layers = match parsed {
            OciManifest::Image(manifest) => manifest.layers,
            OciManifest::ImageIndex(_) => {
                return Err(refuse(
                    "is a list of artifacts, for several platforms; name one of them by its digest, as in \
                     `…/plugin@sha256:…`"
                        .to_owned(),
                ));
            }
        };
        let is_component = |layer: &&OciDescriptor| LAYER_TYPES.contains(&layer.media_type.as_str());
        let mut components = layers.iter().filter(is_component);
        let (Some(layer), None) = (components.next(), components.next()) else {
            let types = layers.iter().map(|layer| format!("`{}`", layer.media_type)).collect::<Vec<_>>();
            let types = if types.is_empty() { "none".to_owned() } else { types.join(", ") };
            return Err(refuse(format!(
                "is no component: it needs one layer of type `application/wasm`, as `wkg oci push` makes it, \
                 and has {types}"
            )));
        };
        let component = Digest::parse(&layer.digest)
            .map_err(|_| refuse("names its component by another digest than SHA-256".to_owned()))?;
        let size = u64::try_from(layer.size)
            .map_err(|_| refuse("has a component of less than no bytes".to_owned()))?;
        if size > MOST_BYTES {
            return Err(SourceError::TooLarge { origin: reference.to_string(), bytes: size });
        }
        Ok(Self { manifest, component, size })
    }
}

impl Client {
    pub(super) fn new(reference: &OciRef, access: Option<&RegistryAccess>) -> Result<Self, SourceError> {
        // Whoever was first has installed the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let insecure =
            access.and_then(|access| access.insecure).unwrap_or_else(|| is_loopback(&reference.registry));
        let protocol = if insecure { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        };
        let unusable = |error: &dyn Error| SourceError::Unreachable {
            reference: reference.to_string(),
            problem: with_causes(error),
        };
        let client = oci_client::Client::try_from(config).map_err(|error| unusable(&error))?;
        let registry = Registry::new(image(reference).resolve_registry(), insecure);
        let registry = registry.map_err(|error| unusable(&error))?;
        let login = access.and_then(|access| access.login.clone());
        let login = login.or_else(|| docker::login(&reference.registry));
        let auth =
            login.map_or(RegistryAuth::Anonymous, |(user, password)| RegistryAuth::Basic(user, password));
        Ok(Self { client, registry, auth })
    }

    /// What the reference means now, and the manifest that says so.
    pub(super) async fn artifact(&self, reference: &OciRef) -> Result<(Artifact, Bytes), SourceError> {
        let image = image(reference);
        let ask = || self.manifest(reference, &image);
        let text = self.try_again(reference, MANIFEST_TIMEOUT, ask).await?;
        let refuse = |problem: String| SourceError::Refused { reference: reference.to_string(), problem };
        let digest = Digest::of(&text);
        if let Some(wanted) = reference.manifest.as_ref().filter(|wanted| **wanted != digest) {
            return Err(refuse(format!("has the manifest {digest}, and was asked for {wanted}")));
        }
        Ok((Artifact::read(reference, digest, &text)?, text))
    }

    /// The component itself, checked against its digest.
    pub(super) async fn component(
        &self,
        reference: &OciRef,
        artifact: &Artifact,
    ) -> Result<Bytes, SourceError> {
        let image = image(reference);
        // A manifest that was kept was not asked for, and so nobody has said who asks.
        self.client.store_auth_if_needed(image.resolve_registry(), &self.auth).await;
        let ask = || self.download(reference, &image, artifact);
        let bytes = self.try_again(reference, COMPONENT_TIMEOUT, ask).await?;
        let found = Digest::of(&bytes);
        if found != artifact.component {
            return Err(SourceError::Refused {
                reference: reference.to_string(),
                problem: format!("came damaged: it is {found}, and its manifest says {}", artifact.component),
            });
        }
        Ok(bytes)
    }

    async fn manifest(&self, reference: &OciRef, image: &Reference) -> Result<Bytes, Trouble> {
        let login = match &self.auth {
            RegistryAuth::Basic(user, password) => Some((user.as_str(), password.as_str())),
            _ => None,
        };
        if login.is_some() {
            self.registry.check_token_service().await?;
        }
        let token = self.client.auth(image, &self.auth, RegistryOperation::Pull).await;
        let token = token.map_err(|error| self.explain(reference, &error))?;
        let wanted = image.digest().or(image.tag()).unwrap_or("latest");
        match self.registry.manifest(image.repository(), wanted, token.as_deref(), login).await {
            Ok(text) => Ok(text.into()),
            Err(NoManifest::Answered(error)) => Err(self.explain(reference, &error)),
            Err(NoManifest::Trouble(trouble)) => Err(trouble),
        }
    }

    async fn download(
        &self,
        reference: &OciRef,
        image: &Reference,
        artifact: &Artifact,
    ) -> Result<Bytes, Trouble> {
        let stream = self.client.pull_blob_stream(image, artifact.component.as_str()).await;
        let mut stream = stream.map_err(|error| self.explain(reference, &error))?;
        let mut bytes = BytesMut::new();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| Trouble::Passing(with_causes(&error)))?;
            if bytes.len() as u64 + piece.len() as u64 > artifact.size {
                let problem = format!("sends more than the {} bytes that its manifest says", artifact.size);
                return Err(Trouble::Lasting(problem));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    async fn try_again<T, F: Future<Output = Result<T, Trouble>>>(
        &self,
        reference: &OciRef,
        longest: Duration,
        attempt: impl Fn() -> F,
    ) -> Result<T, SourceError> {
        let mut pauses = PAUSES.iter();
        loop {
            let problem = match within(longest, attempt()).await {
                Ok(done) => return Ok(done),
                Err(Trouble::Lasting(problem)) => {
                    return Err(SourceError::Refused { reference: reference.to_string(), problem });
                }
                Err(Trouble::Passing(problem)) => problem,
            };
            let Some(pause) = pauses.next() else {
                let advice = if reference.manifest.is_some() {
                    ""
                } else {
                    ". With `digest` in the configuration, a start needs no registry once the component was \
                     fetched"
                };
                let problem = format!("{problem}{advice}");
                return Err(SourceError::Unreachable { reference: reference.to_string(), problem });
            };
            tracing::warn!(%reference, %problem, "could not be fetched; trying again");
            tokio::time::sleep(*pause).await;
        }
    }

    fn explain(&self, reference: &OciRef, error: &OciDistributionError) -> Trouble {
        let registry = &reference.registry;
        match error {
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_) => self.unauthorized(registry),
            OciDistributionError::ServerError { code: 401 | 403, .. } => self.unauthorized(registry),
            OciDistributionError::RegistryError { envelope, .. } => {
                let has = |codes: &[OciErrorCode]| envelope.errors.iter().any(|e| codes.contains(&e.code));
                if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                    return self.unauthorized(registry);
                }
                let message = cut(&envelope.to_string());
                if has(&[OciErrorCode::Toomanyrequests]) {
                    return Trouble::Passing(message);
                }
                Trouble::Lasting(format!("is not in the registry: {message}"))
            }
            OciDistributionError::ServerError { code: 404, .. } => {
                Trouble::Lasting("is not in the registry".to_owned())
            }
            OciDistributionError::ServerError { code, message, .. } if *code >= 500 || *code == 429 => {
                Trouble::Passing(format!("the registry answered with {code}: {}", cut(message)))
            }
            OciDistributionError::ServerError { code, message, .. } => Trouble::Lasting(format!(
                "was not given: the registry answered with {code}: {}",
                cut(message)
            )),
            OciDistributionError::RequestError(_) | OciDistributionError::IoError(_) => {
                Trouble::Passing(cut(&with_causes(error)))
            }
            _ => Trouble::Lasting(format!("was not given as it should be: {}", cut(&with_causes(error)))),
        }
    }

    fn unauthorized(&self, registry: &str) -> Trouble {
        Trouble::Lasting(match self.auth {
            RegistryAuth::Anonymous => format!(
                "is given to nobody without a login, or does not exist: write `username` and `password` under \
                 [registries.\"{registry}\"], or run `docker login {registry}` as this user (a login that a \
                 credential helper keeps is not read)"
            ),
            _ => format!(
                "is not given to this login: check `username` and `password` of [registries.\"{registry}\"], or \
                 of `docker login {registry}`"
            ),
        })
    }
}

async fn within<T>(
    longest: Duration,
    attempt: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let timed_out = |_| Err(Trouble::Passing(format!("the registry took more than {longest:?}")));
    tokio::time::timeout(longest, attempt).await.unwrap_or_else(timed_out)
}

fn image(reference: &OciRef) -> Reference {
    let (registry, repository) = (reference.registry.clone(), reference.repository.clone());
    match (&reference.manifest, &reference.tag) {
        (Some(digest), _) => Reference::with_digest(registry, repository, digest.to_string()),
        (None, tag) => Reference::with_tag(registry, repository, tag.clone().unwrap_or_default()),
    }
}

/// An error and what has led to it: the outermost names the request, the innermost the reason.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// What a server says may be a whole page.
fn cut(text: &str) -> String {
    crate::bounds::cut(text.trim().replace(['\n', '\r'], " "), 500)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> OciRef {
        OciRef::parse("registry.example/plugin:1").unwrap()
    }

    fn read(layers: &serde_json::Value) -> Result<Artifact, String> {
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE_MEDIA_TYPE,
            "config": { "mediaType": "application/vnd.wasm.config.v0+json", "digest": "sha256:1", "size": 2 },
            "layers": layers,
        });
        let text = manifest.to_string();
        Artifact::read(&reference(), Digest::of(text.as_bytes()), text.as_bytes()).map_err(|e| e.to_string())
    }

    fn layer(media_type: &str, size: i64) -> serde_json::Value {
        serde_json::json!({ "mediaType": media_type, "digest": Digest::of(b"x").as_str(), "size": size })
    }

    #[test]
    fn the_digest_of_a_component_is_that_of_its_layer() {
        for media_type in LAYER_TYPES {
            let artifact =
                read(&serde_json::json!([layer("text/markdown", 3), layer(media_type, 1)])).unwrap();
            assert_eq!((artifact.component, artifact.size), (Digest::of(b"x"), 1));
        }
    }

    #[test]
    fn what_is_no_component_is_refused_before_anything_is_downloaded() {
        let wasm = "application/wasm";
        let other = serde_json::json!({ "mediaType": wasm, "digest": "sha512:12", "size": 1 });
        for (layers, why) in [
            (serde_json::json!([]), "and has none"),
            (serde_json::json!([layer("application/x-tar", 1)]), "and has `application/x-tar`"),
            (serde_json::json!([layer(wasm, 1), layer(wasm, 1)]), "needs one layer"),
            (serde_json::json!([layer(wasm, 1 << 40)]), "at most 134217728"),
            (serde_json::json!([layer(wasm, -1)]), "less than no bytes"),
            (serde_json::json!([other]), "another digest than SHA-256"),
        ] {
            let error = read(&layers).err().unwrap();
            assert!(error.contains("oci://registry.example/plugin:1") && error.contains(why), "{error}");
        }
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [] }).to_string();
        let error = Artifact::read(&reference(), Digest::of(b""), index.as_bytes()).err().unwrap();
        assert!(error.to_string().contains("a list of artifacts"), "{error}");
        let error = Artifact::read(&reference(), Digest::of(b""), b"<html>").err().unwrap();
        assert!(error.to_string().contains("cannot be read"), "{error}");
    }

    #[tokio::test]
    async fn a_registry_that_is_not_there_is_told_with_what_would_help() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let reference = OciRef::parse(&format!("{free}/plugin:1")).unwrap();
        let login = Some(("me".to_owned(), "hunter2".to_owned()));
        let access = RegistryAccess { login, insecure: None };
        let client = Client::new(&reference, Some(&access)).unwrap();
        let error = client.artifact(&reference).await.err().unwrap();
        let message = error.to_string();
        assert!(matches!(error, SourceError::Unreachable { .. }), "{message}");
        assert!(message.contains("refused") && message.contains("`digest`"), "{message}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
