//! Asking a registry for a manifest, within bounds: `oci_client` reads as much as it is sent, and
//! sends a login wherever it is told to.

use oci_client::errors::{OciDistributionError, OciEnvelope};
use reqwest::header::{ACCEPT, WWW_AUTHENTICATE};
use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, Response, StatusCode, Url};

use super::{CONNECT_TIMEOUT, MANIFEST_TYPES, READ_TIMEOUT, Trouble, USER_AGENT, cut, with_causes};

/// Bytes of a manifest; the specification asks registries to take 4 MiB.
const MOST_OF_MANIFEST: usize = 4 << 20;
/// Bytes of an answer that says why there is none.
const MOST_OF_COMPLAINT: usize = 64 << 10;
const MOST_REDIRECTS: usize = 5;

/// A registry, by the start of its URLs.
pub(super) struct Registry {
    client: reqwest::Client,
    /// With the scheme.
    root: String,
}

/// Why there is no manifest.
pub(super) enum NoManifest {
    /// What the registry answered.
    Answered(OciDistributionError),
    Trouble(Trouble),
}

impl From<Trouble> for NoManifest {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl Registry {
    pub(super) fn new(registry: &str, insecure: bool) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(USER_AGENT)
            .redirect(Policy::custom(|attempt| {
                let was_secure = attempt.previous().iter().any(|url| url.scheme() == "https");
                if was_secure && attempt.url().scheme() != "https" {
                    attempt.error("it leads from TLS to a place without")
                } else if attempt.previous().len() > MOST_REDIRECTS {
                    attempt.error("there are too many")
                } else {
                    attempt.follow()
                }
            }))
            .build()?;
        let scheme = if insecure { "http" } else { "https" };
        Ok(Self { client, root: format!("{scheme}://{registry}/v2/") })
    }

    /// Refuses a registry with TLS that has the login sent without.
    pub(super) async fn check_token_service(&self) -> Result<(), Trouble> {
        let answer = send(self.client.get(&self.root)).await?;
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenges = challenges.filter_map(|challenge| challenge.to_str().ok());
        match challenges.filter_map(realm).find(|realm| !is_secure(realm)) {
            Some(realm) if self.root.starts_with("https:") => Err(Trouble::Lasting(cut(&format!(
                "is not asked for with this login: the registry wants it sent to {realm}, which has no TLS"
            )))),
            _ => Ok(()),
        }
    }

    /// The manifest of a tag or digest, with a token, or with a login where the registry wants one.
    pub(super) async fn manifest(
        &self,
        repository: &str,
        reference: &str,
        token: Option<&str>,
        login: Option<(&str, &str)>,
    ) -> Result<Vec<u8>, NoManifest> {
        let url = format!("{}{repository}/manifests/{reference}", self.root);
        let ask = || self.client.get(&url).header(ACCEPT, MANIFEST_TYPES.join(", "));
        let mut answer = send(match token {
            Some(token) => ask().bearer_auth(token),
            None => ask(),
        })
        .await?;
        if let (StatusCode::UNAUTHORIZED, None, Some((user, password))) = (answer.status(), token, login) {
            answer = send(ask().basic_auth(user, Some(password))).await?;
        }
        let status = answer.status();
        if status == StatusCode::OK {
            return read(answer, MOST_OF_MANIFEST).await?.ok_or_else(|| {
                let problem = format!("has a manifest of more than {MOST_OF_MANIFEST} bytes");
                Trouble::Lasting(problem).into()
            });
        }
        let complaint = read(answer, MOST_OF_COMPLAINT).await?.unwrap_or_default();
        Err(NoManifest::Answered(match serde_json::from_slice::<OciEnvelope>(&complaint) {
            Ok(envelope) if status.is_client_error() => OciDistributionError::RegistryError { envelope, url },
            _ => OciDistributionError::ServerError {
                code: status.as_u16(),
                url,
                message: String::from_utf8_lossy(&complaint).into_owned(),
            },
        }))
    }
}

async fn send(request: RequestBuilder) -> Result<Response, Trouble> {
    request.send().await.map_err(|error| {
        let problem = cut(&with_causes(&error));
        if error.is_redirect() { Trouble::Lasting(problem) } else { Trouble::Passing(problem) }
    })
}

/// The body, or nothing where it has more than so many bytes.
async fn read(mut answer: Response, most: usize) -> Result<Option<Vec<u8>>, Trouble> {
    let mut bytes = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(piece)) if bytes.len() + piece.len() > most => return Ok(None),
            Ok(Some(piece)) => bytes.extend_from_slice(&piece),
            Ok(None) => return Ok(Some(bytes)),
            Err(error) => return Err(Trouble::Passing(cut(&with_causes(&error)))),
        }
    }
}

/// Where a challenge wants the login sent (RFC 6750, 3; RFC 9110, 11.6.1). `Basic` has a text for
/// people there, and the login goes to the registry itself.
fn realm(challenge: &str) -> Option<&str> {
    let (scheme, parameters) = challenge.trim_start().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let at = parameters.to_ascii_lowercase().find("realm=")?;
    let value = &parameters[at + "realm=".len()..];
    match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => value.split([',', ' ']).next(),
    }
}

fn is_secure(realm: &str) -> bool {
    Url::parse(realm).is_ok_and(|url| url.scheme() == "https")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn where_a_login_is_to_be_sent_is_read_from_the_challenge() {
        for (challenge, expected) in [
            ("Bearer realm=\"https://auth.test/token\",service=\"s\"", Some("https://auth.test/token")),
            ("bearer service=\"s\", Realm=\"http://auth.test/\"", Some("http://auth.test/")),
            ("Bearer realm=http://auth.test,service=s", Some("http://auth.test")),
            ("Basic realm=\"http://auth.test\"", None),
            ("Bearer service=\"s\"", None),
            ("Bearer", None),
        ] {
            assert_eq!(realm(challenge), expected, "{challenge}");
        }
        assert!(is_secure("https://auth.test/token"));
        assert!(!is_secure("http://auth.test/token") && !is_secure("auth.test"));
    }

    #[tokio::test]
    async fn a_manifest_without_an_end_is_refused_while_it_is_read() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            // For as long as anybody reads.
            while stream.write_all(chunk.as_bytes()).await.is_ok() {}
        });
        let registry = Registry::new(&at.to_string(), true).unwrap();
        let refused = registry.manifest("plugin", "1", None, None).await;
        let Err(NoManifest::Trouble(Trouble::Lasting(problem))) = refused else { panic!("it has no end") };
        assert_eq!(problem, "has a manifest of more than 4194304 bytes");
        server.await.unwrap();
    }
}
