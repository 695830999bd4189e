//! Debian's `docker-registry`, for tests that load components from a registry.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use innkeeper::plugin::Digest;
use oci_client::Reference;
use oci_client::client::{Client, ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::secrets::RegistryAuth;

use crate::host::until;

/// Who may use it, where it asks.
pub const USER: &str = "team";

/// That user's password.
pub const PASSWORD: &str = "sesame";

/// The password as bcrypt has it, which is all that the registry takes.
const HASHED: &str = "$2b$04$qSUJok.FZH4KYy0it7JQQ.ZdKOZ8EVZE0XMMfJI8hLt81Ray6Clbu";

/// A running registry on a port of this machine, ended when it is dropped. What was pushed is kept
/// until then, and can be served again.
pub struct Registry {
    child: Option<Child>,
    port: u16,
    folder: tempfile::TempDir,
}

/// What was pushed.
pub struct Pushed {
    /// How a configuration names it, by its tag.
    pub reference: String,
    /// The digest of its manifest.
    pub manifest: String,
}

impl Registry {
    /// Starts one that asks everybody for the login.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        // Free again at the end of the statement.
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free").local_addr();
        let port = port.expect("it has an address").port();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("users"), format!("{USER}:{HASHED}\n")).expect("write");
        let text = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n\
             auth: {{htpasswd: {{realm: tests, path: {}}}}}\n",
            path("data").display(),
            path("users").display(),
        );
        std::fs::write(path("config.yml"), text).expect("write");
        let mut registry = Self { child: None, port, folder };
        registry.serve().await;
        registry
    }

    /// Serves again what was pushed before it was stopped.
    pub async fn serve(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).expect("write");
        let mut command = Command::new(program());
        command.arg("serve").arg(self.folder.path().join("config.yml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("the registry can be started"));
        let address = self.address();
        until("the registry answers", async || std::net::TcpStream::connect(&address).ok()).await;
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Its host and port.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Pushes a component as `wkg oci push` does.
    pub async fn push(&self, name: &str, component: &[u8]) -> Pushed {
        self.push_layer(name, component, "application/wasm").await
    }

    /// The same with a layer of another type.
    pub async fn push_layer(&self, name: &str, bytes: &[u8], media_type: &str) -> Pushed {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
        let client = Client::new(config);
        let (repository, tag) = name.split_once(':').expect("a tag");
        let image = Reference::with_tag(self.address(), repository.to_owned(), tag.to_owned());
        let auth = RegistryAuth::Basic(USER.to_owned(), PASSWORD.to_owned());
        let layer = ImageLayer::new(bytes.to_vec(), media_type.to_owned(), None);
        let config = serde_json::json!({
            "created": "2026-11-23T00:00:00Z", "architecture": "wasm", "os": "wasip2",
            "layerDigests": [Digest::of(bytes).as_str()],
        });
        let config = Config::new(config.to_string(), "application/vnd.wasm.config.v0+json".to_owned(), None);
        client.push(&image, &[layer], config, &auth, None).await.expect("it can be pushed");
        let manifest = client.fetch_manifest_digest(&image, &auth).await.expect("it is there");
        Pushed { reference: format!("oci://{}/{name}", self.address()), manifest }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = self.folder.path().join("log");
            eprintln!("--- the registry's log\n{}\n---", std::fs::read_to_string(log).unwrap_or_default());
        }
    }
}

/// The program, as `cargo xtask test` has found or installed it.
fn program() -> PathBuf {
    let given = std::env::var_os("INNKEEPER_TEST_REGISTRY").map(PathBuf::from);
    let path = given.unwrap_or_else(|| Path::new("/usr/bin/docker-registry").to_owned());
    assert!(
        path.is_file(),
        "{} is not there: run `cargo xtask test`, which installs docker-registry, or set INNKEEPER_TEST_REGISTRY",
        path.display()
    );
    path
}
