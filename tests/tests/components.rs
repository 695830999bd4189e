//! What can be loaded, and from where: registries, pins, programs, core modules, and what is refused.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use innkeeper::execution::{FailureKind, State};
use innkeeper::plugin::Digest;
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, binary, guest};
use innkeeper_tests::registry::{PASSWORD, Registry, USER};
use serde_json::{Value, json};

/// A folder with a configuration, where commands are run.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder can be made"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), bytes).expect("it can be written");
    }

    /// Without the logins of whoever runs the tests.
    fn innkeeper(&self, args: &[&str]) -> Output {
        Command::new(binary())
            .current_dir(self.path())
            .env("HOME", self.path())
            .env_remove("DOCKER_CONFIG")
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("it starts")
    }

    /// `check` with this configuration: whether it is in order, and all that was printed.
    fn check(&self, configuration: &str) -> (bool, String) {
        self.write("innkeeper.toml", configuration);
        let output = self.innkeeper(&["check", "--offline"]);
        (output.status.success(), told(&output))
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn login(registry: &Registry, password: &str) -> String {
    let address = registry.address();
    format!("[registries.\"{address}\"]\nusername = \"{USER}\"\npassword = \"{password}\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_of_a_registry_is_given_to_those_with_a_login_alone() {
    let registry = Registry::start().await;
    let component = std::fs::read(guest("probe")).expect("it is there");
    let pushed = registry.push("team/probe:1.0", &component).await;
    let plugin = format!("[plugins.p]\ncomponent = {:?}\n", pushed.reference);
    let folder = Folder::new();

    let (fine, told) = folder.check(&plugin);
    assert!(!fine && told.contains("innkeeper.toml:2:13: ") && told.contains("write `username`"), "{told}");
    let (fine, told) = folder.check(&(plugin.clone() + &login(&registry, "wr0ng")));
    assert!(!fine && told.contains("is not given to this login") && !told.contains("wr0ng"), "{told}");
    let (fine, told) = folder.check(&(plugin.clone() + &login(&registry, PASSWORD)));
    assert!(fine && !told.contains(PASSWORD), "{told}");

    // As `docker login` leaves it: base64 of `team:sesame`.
    let docker = Folder::new();
    std::fs::create_dir(docker.path().join(".docker")).expect("it can be made");
    let auths = json!({ "auths": { registry.address(): { "auth": "dGVhbTpzZXNhbWU=" } } });
    docker.write(".docker/config.json", auths.to_string());
    let (fine, told) = docker.check(&plugin);
    assert!(fine, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_component_that_was_fetched_needs_its_registry_no_more() {
    let mut registry = Registry::start().await;
    let component = std::fs::read(guest("command")).expect("it is there");
    let digest = Digest::of(&component);
    let pushed = registry.push("command:1.0", &component).await;
    let plugin = |reference: &str, more: &str| {
        format!("[plugins.p]\ncomponent = {reference:?}\n{more}\n") + &login(&registry, PASSWORD)
    };
    let by_tag = plugin(&pushed.reference, "");
    let by_digest = plugin(&pushed.reference, &format!("digest = \"{digest}\""));
    let by_manifest = plugin(&format!("{}@{}", pushed.reference, pushed.manifest), "");
    let (folder, empty) = (Folder::new(), Folder::new());
    for configuration in [&by_tag, &by_digest, &by_manifest] {
        let (fine, told) = folder.check(configuration);
        assert!(fine, "{told}");
    }

    registry.stop();
    for pinned in [&by_digest, &by_manifest] {
        let (fine, told) = folder.check(pinned);
        assert!(fine, "it was fetched before: {told}");
        let (fine, told) = empty.check(pinned);
        assert!(!fine && told.contains("could not be fetched"), "{told}");
    }
    let (fine, told) = folder.check(&by_tag);
    assert!(!fine && told.contains("With `digest` in the configuration"), "{told}");

    // What is damaged is fetched again.
    let kept = folder.path().join(format!("innkeeper-data/fetched/{}.wasm", digest.hex()));
    std::fs::write(&kept, b"damaged").expect("it is kept there");
    assert!(!folder.check(&by_digest).0, "it is not run");
    registry.serve().await;
    let (fine, told) = folder.check(&by_digest);
    assert!(fine, "{told}");
    assert_eq!(std::fs::read(&kept).expect("it is kept again"), component);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_component_than_the_pinned_one_is_refused_with_both_digests() {
    let registry = Registry::start().await;
    let (old, new) = (std::fs::read(guest("command")).unwrap(), std::fs::read(guest("probe")).unwrap());
    let pushed = registry.push("plugin:1", &old).await;
    let pin = format!("digest = \"{}\"\n", Digest::of(&old));
    let folder = Folder::new();
    folder.write("p.wasm", &new);
    // The tag moves on.
    registry.push("plugin:1", &new).await;
    for component in [pushed.reference.as_str(), "p.wasm"] {
        let configuration = format!("[plugins.p]\ncomponent = {component:?}\n{pin}");
        let (fine, told) = folder.check(&(configuration + &login(&registry, PASSWORD)));
        assert!(!fine, "{told}");
        for digest in [Digest::of(&old), Digest::of(&new)] {
            assert!(told.contains(digest.as_str()), "{digest}: {told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_component_in_a_registry_is_told_with_what_it_is() {
    let registry = Registry::start().await;
    let image = registry.push_layer("image:1", b"tar", "application/vnd.oci.image.layer.v1.tar").await;
    let missing = format!("oci://{}/nothing:1", registry.address());
    for (reference, why) in [
        (image.reference.as_str(), "has `application/vnd.oci.image.layer.v1.tar`"),
        (&missing, "is not in the registry"),
    ] {
        let configuration = format!("[plugins.p]\ncomponent = {reference:?}\n") + &login(&registry, PASSWORD);
        let (fine, told) = Folder::new().check(&configuration);
        assert!(!fine && told.contains(reference) && told.contains(why), "{told}");
    }
}

const PROGRAM_JOBS: &str = r#"
[jobs.program]
plugin = "tool"
handler = "run"
retry = { max_attempts = 1 }
"#;

fn lines(scene: &Scene, id: uuid::Uuid) -> Vec<(String, String)> {
    let document = scene.innkeeper_json(&["execution", "logs", &id.to_string()]);
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let logs = document["logs"].as_array().unwrap_or_else(|| panic!("{document}"));
    logs.iter().map(|line| (text(line, "level"), text(line, "message"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_runs_as_a_job_without_an_sdk() {
    let scene = Scene::new(Engine::Sqlite).await;
    let tool = format!("[plugins.tool]\ncomponent = {:?}\n", guest("command"));
    let host = scene.serve(&(tool + PROGRAM_JOBS)).await;
    let store = scene.open_store().await;

    let args = json!({ "argv": ["echo", "--days", "7"], "region": "north" });
    let id = scene.run("program", &args);
    let record = scene.wait_for_end(&store, id).await;
    let expected = json!({
        "arguments": ["tool", "echo", "--days", "7"], "input": args, "variables": 3,
        "attempt": "1", "job": "program", "execution": id.to_string(),
    });
    assert_eq!((record.state, record.result), (State::Succeeded, Some(expected)), "{:?}", record.error);
    assert_eq!(lines(&scene, id).len(), 5, "what is the result is in the log as well");

    let id = scene.run("program", &json!({ "argv": ["print", "done, as far as I can see"] }));
    let record = scene.wait_for_end(&store, id).await;
    assert_eq!((record.state, record.result), (State::Succeeded, Some(Value::Null)));
    let logged = lines(&scene, id);
    assert!(logged.contains(&("info".to_owned(), "done, as far as I can see".to_owned())), "{logged:?}");
    assert!(logged.contains(&("error".to_owned(), "printed 25 bytes".to_owned())), "{logged:?}");

    let id = scene.run("program", &json!({ "argv": ["fail", "3"] }));
    let error = scene.wait_for_end(&store, id).await.error.expect("it failed");
    assert_eq!(error.kind, FailureKind::Handler, "it is tried again by the job's policy");
    assert!(error.message.starts_with("the program ended with exit code"), "{error:?}");
    assert!(error.message.ends_with("there is no such customer"), "{error:?}");

    let id = scene.run("program", &json!({ "argv": ["panic"] }));
    let error = scene.wait_for_end(&store, id).await.error.expect("it failed");
    assert_eq!(error.kind, FailureKind::Trap);
    assert!(error.message.contains("the program panics"), "{error:?}");

    let id = scene.run("program", &json!({ "argv": ["flood"] }));
    let record = scene.wait_for_end(&store, id).await;
    assert_eq!((record.state, record.result), (State::Succeeded, Some(Value::Null)));
    let logged = lines(&scene, id);
    assert!(logged.iter().any(|(_, line)| line.contains("and a result at most 1048576")), "{logged:?}");

    let refused = scene.innkeeper(&["job", "run", "program", "--args", r#"{"argv": "echo"}"#]);
    assert_eq!(refused.status.code(), Some(2), "the arguments have a schema: {}", told(&refused));
    host.stop().await;
}

/// A program of WASI preview 1, as Go and C make them: it prints 42 and ends with 0.
const PREVIEW_1: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\03\00\00\00")
  (data (i32.const 16) "42\n")
  (func (export "_start")
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (call $exit (i32.const 0))))"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_core_module_runs_and_is_known_by_the_digest_of_its_file() {
    let scene = Scene::new(Engine::Sqlite).await;
    let module = wat::parse_str(PREVIEW_1).expect("it is WAT");
    std::fs::write(scene.dir().join("module.wasm"), &module).expect("it can be written");
    let host = scene.serve(&format!("[plugins.tool]\ncomponent = \"module.wasm\"\n{PROGRAM_JOBS}")).await;
    let store = scene.open_store().await;
    let id = scene.run("program", &json!({}));
    let record = scene.wait_for_end(&store, id).await;
    assert_eq!((record.state, record.result), (State::Succeeded, Some(json!(42))), "{:?}", record.error);
    assert_eq!(record.component_digest.as_deref(), Some(Digest::of(&module).as_str()));
    host.stop().await;
}

#[test]
fn what_is_too_much_for_a_host_is_refused_before_it_is_compiled() {
    let folder = Folder::new();
    let doubled = (1..64).fold(
        "(component $c0 (core module $m) (core instance (instantiate $m)))".to_owned(),
        |wat, n| {
            let inner = n - 1;
            format!(
                "{wat} (component $c{n} (alias outer 1 $c{inner} (component $c))
                   (instance (instantiate $c)) (instance (instantiate $c)))"
            )
        },
    );
    let memory = "(module (memory (export \"memory\") 65536) (func (export \"_start\")))";
    let bombs = [
        (format!("(component {doubled} (instance (instantiate $c63)))"), "instances of core modules: "),
        (memory.to_owned(), "its memories have 4.0 GiB to begin with"),
        ("(component ".repeat(100) + &")".repeat(100), "more than 32 deep"),
        (
            "(module (memory (export \"memory\") 1) (table 4000000000 funcref) (func (export \"_start\")))"
                .to_owned(),
            "elements in one table",
        ),
    ];
    for (wat, why) in bombs {
        folder.write("bomb.wasm", wat::parse_str(&wat).expect("it is WAT"));
        let (fine, told) = folder.check("[plugins.p]\ncomponent = \"bomb.wasm\"\n");
        assert!(!fine && told.contains("innkeeper.toml:2:13: ") && told.contains(why), "{why}: {told}");
    }
    // A hole: it takes no room on the disk.
    let file = std::fs::File::create(folder.path().join("bomb.wasm")).expect("it can be made");
    file.set_len(200 << 20).expect("it can be that large");
    let (fine, told) = folder.check("[plugins.p]\ncomponent = \"bomb.wasm\"\n");
    assert!(!fine && told.contains("has 209715200 bytes, and at most 134217728"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_tells_what_a_component_needs_and_offers_without_a_configuration() {
    let folder = Folder::new();
    let inspect = |component: &str| folder.innkeeper(&["plugin", "inspect", component]);
    let json = |component: &str| -> Value {
        let output = folder.innkeeper(&["plugin", "inspect", component, "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", told(&output)))
    };

    let probe = guest("probe").display().to_string();
    let output = inspect(&probe);
    let text = told(&output);
    assert!(output.status.success(), "{text}");
    let digest = Digest::of(&std::fs::read(&probe).unwrap());
    for part in [
        digest.as_str(),
        "a component, with handlers",
        "Handler `sleep`: ",
        "\"ms\"",
        "[[plugins.NAME.databases]]",
        "innkeeper:plugin/context@0.1.0",
        "Rust",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let document = json(&probe);
    assert_eq!((&document["form"], &document["offers"]), (&json!("component"), &json!("handlers")));
    assert_eq!((&document["digest"], &document["problem"]), (&json!(digest.as_str()), &Value::Null));
    let db =
        document["imports"].as_array().unwrap().iter().find(|i| i["name"] == "innkeeper:plugin/db@0.1.0");
    assert_eq!(db.unwrap()["given"], "granted");

    let document = json(&guest("command").display().to_string());
    assert_eq!((&document["offers"], &document["handlers"][0]["name"]), (&json!("program"), &json!("run")));

    folder.write("module.wasm", wat::parse_str(PREVIEW_1).expect("it is WAT"));
    let document = json("module.wasm");
    assert_eq!((&document["form"], &document["offers"]), (&json!("core-module"), &json!("program")));

    let lacking =
        "(component (import \"acme:things/stock@1.0.0\" (instance (export \"f\" (func)))) (instance $i)
        (export \"innkeeper:plugin/handlers@0.1.0\" (instance $i)))";
    folder.write("lacking.wasm", wat::parse_str(lacking).expect("it is WAT"));
    let output = inspect("lacking.wasm");
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("Imports that this host does not have:\n  acme:things/stock@1.0.0: "));
    assert_eq!(json("lacking.wasm")["imports"][0]["given"], "missing");

    folder.write("text.wasm", "hello");
    assert!(told(&inspect("text.wasm")).contains("no WebAssembly"));
    assert!(told(&inspect("gone.wasm")).contains("there is no file"));
    assert!(told(&inspect("oci://nowhere")).contains("must name a registry"));

    let registry = Registry::start().await;
    let pushed = registry.push("probe:1", &std::fs::read(&probe).unwrap()).await;
    folder.write("innkeeper.toml", login(&registry, PASSWORD));
    let document = json(&pushed.reference);
    assert_eq!(document["digest"], digest.as_str(), "from a registry and from a file alike");
    assert_eq!(document["manifest_digest"], pushed.manifest.as_str());
}
