//! What plugins are granted and refused, with the real binary and a guest that tries: requests,
//! secrets, files, variables, sockets.

#[path = "capabilities/server.rs"]
mod server;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use innkeeper::execution::State;
use innkeeper::store::{ExecutionRecord, Store};
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, TestHost, guest, until};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::Raw;
use serde_json::{Value, json};

use server::Server;

/// Nobody else has it, so that it can be looked for anywhere.
const SECRET: &str = "hunter2-5fd1b0c4";

/// A host whose plugin `capable` has these keys, and a job for each of its handlers.
struct Stage {
    scene: Scene,
    store: Store,
    host: TestHost,
}

/// How an execution ended, and what was said of it.
struct Ended {
    record: ExecutionRecord,
    result: Value,
    /// Its log, a line for each.
    log: Vec<String>,
}

fn file(keys: &str) -> String {
    let mut text = format!("[plugins.capable]\ncomponent = {:?}\n{keys}\n", guest("capable"));
    for handler in ["at-once", "file", "request", "socket", "variables"] {
        let job = format!(
            "[jobs.{handler}]\nplugin = \"capable\"\nhandler = \"{handler}\"\nargs = {}\nretry = {{ max_attempts = 1 }}\ncancel_grace = \"0s\"\n",
            match handler {
                "at-once" => "{ count = 0, request = { scheme = \"http\", authority = \"h.test\" } }",
                "file" => "{ how = \"look\", path = \"/\" }",
                "request" => "{ scheme = \"http\", authority = \"h.test\" }",
                "socket" => "{ what = \"tcp\", address = \"127.0.0.1:1\" }",
                _ => "{}",
            }
        );
        text += &job;
    }
    text
}

impl Stage {
    async fn new(engine: Engine, keys: &str) -> Self {
        let scene = Scene::new(engine).await;
        let host = scene.serve(&file(keys)).await;
        let store = scene.open_store().await;
        Self { scene, store, host }
    }

    async fn run(&self, job: &str, args: Value) -> Ended {
        let id = self.scene.enqueue(&self.store, job, &args).await;
        let record = self.scene.wait_for_end(&self.store, id).await;
        let document = self.scene.innkeeper_json(&["execution", "logs", &id.to_string()]);
        let log = document["logs"].as_array().expect("there are logs");
        let log = log.iter().map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect();
        let result = record.result.clone().unwrap_or_default();
        Ended { record, result, log }
    }

    /// A request that is done.
    async fn request(&self, args: Value) -> Ended {
        let ended = self.run("request", args).await;
        assert_eq!(ended.record.state, State::Succeeded, "the guest can handle it: {:?}", ended.record.error);
        ended
    }

    async fn file(&self, how: &str, path: &str) -> Ended {
        self.run("file", json!({ "how": how, "path": path, "text": "written" })).await
    }
}

impl Ended {
    /// It was refused for this reason, and the one line of its log says all of this.
    fn is_refused(&self, error: &str, parts: &[&str]) {
        assert_eq!(self.result["error"], json!(error), "{:?}", self.log);
        let [line] = self.log.as_slice() else { panic!("one line: {:?}", self.log) };
        for part in parts {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
}

/// Every row of every table of the store, as text.
async fn everything_in(scene: &Scene) -> String {
    let mut raw = Raw::connect(scene.store.url()).await;
    let tables = match scene.engine {
        Engine::Sqlite => "select name from sqlite_schema where type = 'table'",
        Engine::Postgres => {
            "select format('%I.%I', schemaname, tablename) from pg_tables \
             where schemaname not in ('pg_catalog', 'information_schema')"
        }
    };
    let mut text = String::new();
    for table in raw.texts(tables).await {
        let rows = match scene.engine {
            Engine::Sqlite => {
                let columns = raw.texts(&format!("select name from pragma_table_info('{table}')")).await;
                let columns = columns.iter().map(|name| format!("quote(\"{name}\")")).collect::<Vec<_>>();
                raw.texts(&format!("select {} from \"{table}\"", columns.join(" || ' ' || "))).await
            }
            Engine::Postgres => raw.texts(&format!("select t::text from {table} t")).await,
        };
        text += &rows.join("\n");
    }
    text
}

fn http(keys: &str) -> String {
    format!("[plugins.capable.http]\n{keys}\n")
}

fn get(server: &Server, path: &str) -> Value {
    json!({ "scheme": "http", "authority": server.address.to_string(), "path": path })
}

fn with(mut request: Value, key: &str, value: Value) -> Value {
    request[key] = value;
    request
}

/// A folder of this name, with a file `a.txt` that has the name in it.
fn folder_with_a_file(within: &Path, name: &str) -> PathBuf {
    let path = within.join(name);
    std::fs::create_dir(&path).expect("it can be made");
    std::fs::write(path.join("a.txt"), name).expect("it can be written");
    path
}

on_both_engines! {
    async fn a_request_is_sent_where_it_is_granted_and_nowhere_else(engine: Engine) {
        let (granted, other) = (Server::new().await, Server::new().await);
        let at = granted.address;
        let stage = Stage::new(engine, &http(&format!("allow = [\"GET,POST http://{at}/v2\"]"))).await;

        let ended = stage.request(get(&granted, "/v2/x?y=z")).await;
        assert_eq!((&ended.result["status"], &ended.result["body"]), (&json!(200), &json!("hello")));
        assert!(ended.log.is_empty(), "{:?}", ended.log);
        let posted = with(with(get(&granted, "/v2"), "method", json!("POST")), "body", json!(100_000));
        assert_eq!(stage.request(posted.clone()).await.result["status"], json!(200));
        let heads = granted.heads();
        assert!(heads[0].starts_with("GET /v2/x?y=z HTTP/1.1\r\n"), "{heads:?}");
        assert!(heads[0].contains(&format!("host: {at}\r\n")), "{heads:?}");

        let forged = with(get(&granted, "/v2"), "headers", json!({ "Host": "other.test" }));
        let forged = stage.request(forged).await;
        assert!(forged.result["error"].as_str().is_some_and(|error| error.contains("Forbidden")), "{}", forged.result);

        let line = format!("add \"GET http://{at}/v3\" to `allow` in [plugins.capable.http]");
        stage.request(get(&granted, "/v3")).await.is_refused("HttpRequestDenied", &[&line]);
        for refused in [
            get(&granted, "/v2evil"),
            get(&granted, "/v2/%2e%2e/v3"),
            get(&other, "/v2"),
            with(get(&granted, "/v2"), "method", json!("PUT")),
            with(get(&granted, "/v2"), "method", json!("CONNECT")),
            with(get(&granted, "/v2"), "scheme", json!("https")),
            with(get(&granted, "/v2"), "authority", json!(format!("localhost:{}", at.port()))),
            with(get(&granted, "/v2"), "authority", json!("127.0.0.1")),
            with(with(get(&other, "/v2"), "method", json!("POST")), "body", json!(1_000_000)),
        ] {
            let ended = stage.request(refused).await;
            ended.is_refused("HttpRequestDenied", &["refused"]);
        }
        assert_eq!(granted.heads().len(), 2);

        // The guest is told where the answer leads, and may not go there either.
        let moved = stage.request(get(&granted, &format!("/v2/moved?http://{}/v2", other.address))).await;
        assert_eq!(moved.result["status"], json!(302));
        assert_eq!(moved.result["headers"]["location"], json!(format!("http://{}/v2", other.address)));
        assert!(other.heads().is_empty(), "the host follows no redirect: {:?}", other.heads());

        let many = json!({ "count": 20, "request": get(&other, "/") });
        let ended = stage.run("at-once", many).await;
        assert_eq!(ended.result, json!(vec!["HttpRequestDenied"; 20]));
        assert_eq!(ended.log.len(), 1, "the same is told once: {:?}", ended.log);
        stage.host.stop().await;
    }

    async fn requests_stay_within_their_bounds(engine: Engine) {
        let server = Server::new().await;
        let keys = format!(
            "allow = [\"* http://{}\"]\nmax_open_requests = 2\nmax_request_bytes = \"64 KiB\"\n\
             max_response_bytes = \"64 KiB\"",
            server.address
        );
        let stage = Stage::new(engine, &http(&keys)).await;
        for (path, outcome) in [
            ("/broken", "HttpProtocolError"),
            ("/large-head", "HttpResponseHeaderSectionSize"),
            // In the middle of a body there is no code, only a text.
            ("/large?65537", "HTTP response body size"),
        ] {
            let ended = stage.request(get(&server, path)).await;
            let error = ended.result["error"].as_str().unwrap_or_default();
            assert!(error.starts_with(outcome), "{path}: {}", ended.result);
            let cut = ended.log.iter().any(|line| line.contains("`max_response_bytes`"));
            assert_eq!(cut, path.starts_with("/large?"), "{path}: {:?}", ended.log);
        }
        let ended = stage.request(get(&server, "/large?65536")).await;
        assert_eq!(ended.result["body"].as_str().map(str::len), Some(65536));
        for (size, fits) in [(65536, true), (65537, false), (10_000_000, false)] {
            let sent = with(with(get(&server, "/"), "method", json!("POST")), "body", json!(size));
            let ended = stage.request(sent).await;
            if fits {
                assert_eq!(ended.result["status"], json!(200));
            } else {
                ended.is_refused("HttpRequestBodySize", &["`max_request_bytes` in [plugins.capable.http]"]);
            }
        }
        let ended = stage.run("at-once", json!({ "count": 3, "request": get(&server, "/") })).await;
        let mut outcomes: Vec<_> = ended.result.as_array().unwrap().iter().map(ToString::to_string).collect();
        outcomes.sort();
        assert_eq!(outcomes, ["\"ConnectionLimitReached\"", "200", "200"]);
        assert!(ended.log[0].contains("`max_open_requests`"), "{:?}", ended.log);
        until("every connection is closed", async || (server.open() == 0).then_some(())).await;
        stage.host.stop().await;
    }

    async fn no_server_makes_a_handler_wait_for_longer_than_it_may(engine: Engine) {
        let server = Server::new().await;
        let allow = format!("allow = [\"* http://{}\"]", server.address);
        for (key, path) in [("first_byte_timeout", "/silent"), ("timeout", "/silent"), ("timeout", "/stalled")] {
            let stage = Stage::new(engine, &http(&format!("{allow}\n{key} = \"300ms\""))).await;
            let ended = stage.request(get(&server, path)).await;
            let error = ended.result["error"].as_str().unwrap_or_default();
            assert_eq!(error.replace(' ', "").to_lowercase(), "httpresponsetimeout", "{key} {path}");
            stage.host.stop().await;
        }
    }

    async fn a_request_that_has_no_connection_ends_in_time_and_is_not_counted(engine: Engine) {
        // It takes connections, and says nothing of TLS.
        let server = Server::new().await;
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.and_then(|socket| socket.local_addr());
        let (at, closed) = (server.address, closed.expect("a port is free"));
        let keys = format!(
            "allow = [\"* https://{at}\", \"* http://{at}\", \"* http://{closed}\"]\n\
             connect_timeout = \"300ms\""
        );
        let stage = Stage::new(engine, &http(&keys)).await;
        let refused = with(get(&server, "/"), "authority", json!(closed.to_string()));
        for (request, outcome, counted) in [
            (with(get(&server, "/"), "scheme", json!("https")), json!("ConnectionTimeout"), 0),
            (refused, json!("ConnectionRefused"), 0),
            (get(&server, "/broken"), json!("HttpProtocolError"), 1),
        ] {
            let ended = stage.request(request).await;
            assert_eq!(ended.result["error"], outcome, "{:?}", ended.log);
            let requests = ended.record.usage.map(|usage| usage.http_requests);
            assert_eq!(requests, Some(counted), "{outcome}");
        }
        stage.host.stop().await;
    }

    async fn a_connection_ends_with_the_execution(engine: Engine) {
        let server = Server::new().await;
        let stage = Stage::new(engine, &http(&format!("allow = [\"* http://{}\"]", server.address))).await;
        let id = stage.scene.enqueue(&stage.store, "request", &get(&server, "/silent")).await;
        until("the server has the request", async || (server.heads().len() == 1).then_some(())).await;
        let output = stage.scene.innkeeper(&["execution", "cancel", &id.to_string()]);
        assert!(output.status.success(), "{output:?}");
        stage.scene.wait_for(&stage.store, id, &[State::Cancelled]).await;
        until("the connection is closed", async || (server.open() == 0).then_some(())).await;
        stage.host.stop().await;
    }

    async fn localhost_is_the_machine_itself_and_needs_no_address(engine: Engine) {
        let server = Server::new().await;
        let port = server.address.port();
        let stage = Stage::new(engine, &http(&format!("allow = [\"* http://localhost:{port}\"]"))).await;
        let local = with(get(&server, "/"), "authority", json!(format!("localhost:{port}")));
        assert_eq!(stage.request(local).await.result["status"], json!(200));
        stage.host.stop().await;
    }

    async fn a_secret_reaches_the_server_and_nobody_else(engine: Engine) {
        let (server, other) = (Server::new().await, Server::new().await);
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let path = dir.path().join("key");
        std::fs::write(&path, format!("{SECRET}\n")).expect("it can be written");
        let (at, elsewhere) = (server.address, other.address);
        let keys = format!(
            "secrets = {{ key = {{ file = {path:?}, hosts = [\"http://{at}\"] }} }}\n{}",
            http(&format!("allow = [\"* http://{at}\", \"* http://{elsewhere}\"]"))
        );
        let stage = Stage::new(engine, &keys).await;
        let headers = json!({ "authorization": "Bearer {key}", "x-twice": "{key}{key}" });
        let ended = stage.request(with(get(&server, "/"), "headers", headers.clone())).await;
        assert_eq!(ended.result["status"], json!(200), "{:?}", ended.log);
        let head = server.heads().remove(0);
        assert!(head.contains(&format!("authorization: Bearer {SECRET}\r\n")), "{head}");
        assert!(head.contains(&format!("x-twice: {SECRET}{SECRET}\r\n")), "{head}");

        let ended = stage.request(with(get(&server, "/echo"), "headers", headers.clone())).await;
        let body = ended.result["body"].as_str().unwrap_or_default();
        assert!(body.contains("authorization: Bearer ****") && !body.contains(SECRET), "{body}");

        let ended = stage.request(with(get(&other, "/"), "headers", headers)).await;
        ended.is_refused("HttpRequestDenied", &["the secret `key`", &format!("hosts = [\"http://{elsewhere}\"]")]);
        let ended = stage.request(get(&server, "/?key={key}")).await;
        ended.is_refused("HttpRequestDenied", &["headers only"]);
        assert!(other.heads().is_empty() && server.heads().len() == 2);

        let config = stage.scene.dir().join("inn-1.toml");
        let mut shown = std::fs::read_to_string(config).expect("it is there");
        for command in [["plugin", "list"], ["execution", "list"], ["check", "--offline"]] {
            write!(shown, "{}", stage.scene.innkeeper_json(&command)).expect("a string takes it");
            let output = stage.scene.innkeeper(&command);
            shown += &String::from_utf8_lossy(&output.stdout);
            shown += &String::from_utf8_lossy(&output.stderr);
        }
        let id = ended.record.id.to_string();
        write!(shown, "{}", stage.scene.innkeeper_json(&["execution", "show", &id])).expect("a string takes it");
        shown += &ended.log.join("\n");
        shown += &stage.host.stop().await;
        let stored = everything_in(&stage.scene).await.to_lowercase();
        // SQLite has ids as bytes.
        assert!(stored.replace('-', "").contains(&id.replace('-', "")), "{id} is not in {stored}");
        assert!(!stored.contains(SECRET), "{stored}");
        let in_bytes = SECRET.bytes().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        assert!(!stored.contains(&in_bytes), "{stored}");
        assert!(shown.contains("key") && !shown.contains(SECRET), "{shown}");
    }

    async fn certificates_are_checked_against_those_that_are_trusted(engine: Engine) {
        let server = Server::with_tls().await;
        let port = server.address.port();
        let ca = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/capabilities/ca.pem");
        let allow = format!("allow = [\"GET https://localhost:{port}\", \"GET https://127.0.0.1:{port}\"]");
        let stage = Stage::new(engine, &http(&format!("{allow}\nca = {ca:?}"))).await;
        for host in ["localhost", "127.0.0.1"] {
            let request = json!({ "scheme": "https", "authority": format!("{host}:{port}") });
            let ended = stage.request(request).await;
            assert_eq!(ended.result["status"], json!(200), "{host}: {}", ended.result);
        }
        stage.host.stop().await;

        // Its own CA is not among the system's.
        let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/capabilities/server.pem");
        let stage = Stage::new(engine, &http(&format!("{allow}\nca = {other:?}"))).await;
        let request = json!({ "scheme": "https", "authority": format!("127.0.0.1:{port}") });
        let ended = stage.request(request).await;
        assert_eq!(ended.result["error"], json!("TlsCertificateError"), "{:?}", ended.log);
        assert_eq!(server.heads().len(), 2);
        stage.host.stop().await;
    }

    async fn a_certificate_of_another_name_is_refused(engine: Engine) {
        // Its certificate, by a CA that is trusted, is for `localhost` and 127.0.0.1.
        let server = Server::with_tls_at("127.0.0.2").await;
        let ca = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/capabilities/ca.pem");
        let allow = format!("allow = [\"GET https://{}\"]\nca = {ca:?}", server.address);
        let stage = Stage::new(engine, &http(&allow)).await;
        let ended = stage.request(with(get(&server, "/"), "scheme", json!("https"))).await;
        assert_eq!(ended.result["error"], json!("TlsCertificateError"), "{:?}", ended.log);
        assert!(server.heads().is_empty(), "nothing was sent: {:?}", server.heads());
        stage.host.stop().await;
    }

    async fn folders_are_seen_where_they_are_granted_and_changed_where_that_is_granted_too(engine: Engine) {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let [read, write, hidden] = ["read", "write", "hidden"].map(|name| folder_with_a_file(dir.path(), name));
        std::os::unix::fs::symlink(&hidden, read.join("out")).expect("it can be made");
        std::os::unix::fs::symlink("a.txt", read.join("in")).expect("it can be made");
        let keys = format!(
            "[[plugins.capable.files]]\npath = {read:?}\nas = \"/data/read\"\n\
             [[plugins.capable.files]]\npath = {write:?}\nas = \"/data/write\"\naccess = \"read-write\"\n"
        );
        let stage = Stage::new(engine, &keys).await;
        for (how, path, result) in [
            ("read", "/data/read/a.txt", json!("read")),
            ("read", "/data/read/in", json!("read")),
            ("list", "/data/read", json!(["a.txt", "in", "out"])),
            ("write", "/data/write/b.txt", json!("written")),
            ("make", "/data/write/c", json!("made")),
            ("remove", "/data/write/a.txt", json!("removed")),
        ] {
            let ended = stage.file(how, path).await;
            assert_eq!(ended.result, result, "{how} {path}: {:?}", ended.log);
            assert!(ended.log.is_empty(), "{how} {path}: {:?}", ended.log);
        }
        assert_eq!(std::fs::read_to_string(write.join("b.txt")).ok().as_deref(), Some("written"));

        for (how, path) in [("write", "/data/read/a.txt"), ("make", "/data/read/d"), ("remove", "/data/read/a.txt")] {
            let ended = stage.file(how, path).await;
            ended.is_refused("permission denied", &["read-only", "`access = \"read-write\"`", "[[plugins.capable.files]]"]);
        }
        for path in ["/data/read/out/a.txt", "/data/read/../../hidden/a.txt"] {
            let ended = stage.file("read", path).await;
            assert!(ended.result["error"].is_string(), "{path}: {}", ended.result);
        }
        let ended = stage.file("read", "/data/read/out/a.txt").await;
        ended.is_refused("permission denied", &["leads out of the folder"]);
        for (how, path) in [("read", "/etc/passwd"), ("list", "/"), ("write", "/x"), ("look", "/data"), ("read", "/data/read-not/a")] {
            let ended = stage.file(how, path).await;
            ended.is_refused("permission denied", &["in no folder that the plugin is granted", "[[plugins.capable.files]]"]);
        }
        assert_eq!(std::fs::read_to_string(read.join("a.txt")).ok().as_deref(), Some("read"));
        stage.host.stop().await;
    }

    async fn no_link_no_rename_and_no_time_of_a_file_gets_past_the_rights_of_its_folder(engine: Engine) {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let [read, write, hidden] = ["read", "write", "hidden"].map(|name| folder_with_a_file(dir.path(), name));
        let keys = format!(
            "[[plugins.capable.files]]\npath = {read:?}\nas = \"/read\"\n\
             [[plugins.capable.files]]\npath = {write:?}\nas = \"/write\"\naccess = \"read-write\"\n"
        );
        let stage = Stage::new(engine, &keys).await;
        let two = async |how: &str, path: &str, to: &str| {
            stage.run("file", json!({ "how": how, "path": path, "to": to })).await
        };
        let read_only = ["read-only", "`access = \"read-write\"`", "[[plugins.capable.files]]"];
        let nowhere = ["in no folder that the plugin is granted", "[[plugins.capable.files]]"];
        let changed = || std::fs::metadata(read.join("a.txt")).and_then(|about| about.modified()).expect("it is there");
        let before = changed();
        for how in ["link", "rename"] {
            two(how, "/read/a.txt", "/write/x").await.is_refused("permission denied", &read_only);
            two(how, "/write/a.txt", "/read/x").await.is_refused("permission denied", &read_only);
            two(how, "/write/a.txt", "/read/x").await.is_refused("permission denied", &["`x` was not written"]);
            two(how, "/read/a.txt", "/read/x").await.is_refused("permission denied", &read_only);
            two(how, "/write/a.txt", "/etc/x").await.is_refused("permission denied", &nowhere);
            two(how, "/write/a.txt", "/etc/x").await.is_refused("permission denied", &["`/etc/x`"]);
            two(how, "/etc/passwd", "/write/x").await.is_refused("permission denied", &["`/etc/passwd`"]);
            let ended = two(how, "/write/a.txt", "/write/../hidden/x").await;
            assert!(ended.result["error"].is_string(), "{}", ended.result);
        }
        stage.file("touch", "/read/a.txt").await.is_refused("not-permitted", &read_only);
        stage.file("touch", "/etc/passwd").await.is_refused("access", &nowhere);
        assert_eq!(changed(), before);
        for (folder, names) in [(&read, 1), (&write, 1), (&hidden, 1)] {
            assert_eq!(std::fs::read_dir(folder).expect("it is there").count(), names, "{}", folder.display());
        }

        assert_eq!(two("link", "/write/a.txt", "/write/b.txt").await.result, json!("linked"));
        assert_eq!(two("rename", "/write/b.txt", "/write/c.txt").await.result, json!("renamed"));
        assert_eq!(stage.file("touch", "/write/c.txt").await.result, json!("touched"));
        stage.host.stop().await;
    }

    async fn a_folder_is_what_it_was_however_often_a_handler_asks_for_its_folders(engine: Engine) {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::write(dir.path().join("a.txt"), "granted").expect("it can be written");
        let keys = format!("[[plugins.capable.files]]\npath = {:?}\nas = \"/read\"\n", dir.path());
        let stage = Stage::new(engine, &keys).await;
        let ended = stage.file("reread", "/read/a.txt").await;
        assert_eq!((&ended.result, ended.log.len()), (&json!("granted"), 0), "{:?}", ended.log);
        stage.file("reread", "/etc/passwd").await.is_refused("access", &["`/etc/passwd`"]);
        stage.host.stop().await;
    }

    async fn a_folder_that_holds_what_the_host_trusts_is_refused_also_when_it_becomes_that(engine: Engine) {
        let scene = Scene::new(engine).await;
        let keys = |path: &str, access: &str| {
            format!("[[plugins.capable.files]]\npath = {path:?}\nas = \"/f\"\naccess = {access:?}\n")
        };
        for (path, access, why) in [
            ("data/compiled", "read-write", "`path` is `compiled` in `data_dir` of [host], which no plugin may write"),
            ("data", "read-only", "`path` is `data_dir` of [host], which no plugin may read"),
            (".", "read-only", "`path` has this configuration file in it"),
        ] {
            scene.configure("inn-1", &file(&keys(path, access)));
            let output = scene.innkeeper(&["check", "--offline"]);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{path}: {told}");
            assert!(told.contains("inn-1.toml:") && told.contains(why), "{path}: {told}");
        }

        // While the host runs, the path is made a link to what it must not reach.
        let (link, free) = (scene.dir().join("link"), scene.dir().join("free"));
        std::fs::create_dir(&free).expect("it can be made");
        std::os::unix::fs::symlink(&free, &link).expect("it can be made");
        let host = scene.serve(&file(&keys("link", "read-write"))).await;
        let stage = Stage { store: scene.open_store().await, scene, host };
        assert_eq!(stage.file("list", "/f").await.result, json!([]));
        std::fs::remove_file(&link).expect("it is there");
        std::os::unix::fs::symlink(stage.scene.dir().join("data"), &link).expect("it can be made");
        let id = stage.scene.enqueue(&stage.store, "file", &json!({ "how": "list", "path": "/f" })).await;
        let record = stage.scene.wait_for_end(&stage.store, id).await;
        assert_eq!(record.result, Some(json!({ "error": "permission denied" })));
        // No command reads the configuration while it grants that.
        std::fs::remove_file(&link).expect("it is there");
        let logs = stage.scene.innkeeper_json(&["execution", "logs", &id.to_string()]).to_string();
        assert!(logs.contains("cannot be opened: it is `data_dir` of [host]"), "{logs}");
        stage.host.stop().await;
    }

    async fn without_grants_there_is_nothing_and_every_attempt_is_told(engine: Engine) {
        let stage = Stage::new(engine, "").await;
        let ended = stage.run("variables", json!({})).await;
        assert_eq!(ended.result, json!({}), "not one of the host's own variables");
        stage.file("read", "/etc/passwd").await.is_refused("permission denied", &["`/etc/passwd`", "[[plugins.capable.files]]"]);
        let request = json!({ "scheme": "https", "authority": "example.org", "path": "/x" });
        let line = "add `allow = [\"GET https://example.org/x\"]` under [plugins.capable.http]";
        stage.request(request).await.is_refused("HttpRequestDenied", &[line]);
        for (what, told) in [("tcp", "TCP sockets"), ("udp", "UDP sockets"), ("name", "the addresses of names")] {
            let address = if what == "name" { "example.org:80" } else { "127.0.0.1:1" };
            let ended = stage.run("socket", json!({ "what": what, "address": address })).await;
            assert!(ended.result["error"].is_string(), "{}", ended.result);
            assert!(ended.log.iter().any(|line| line.contains(told)), "{:?}", ended.log);
        }
        stage.host.stop().await;

        let stage = Stage::new(engine, "env = { TZ = \"UTC\", EMPTY = \"\" }").await;
        let ended = stage.run("variables", json!({})).await;
        assert_eq!(ended.result, json!({ "TZ": "UTC", "EMPTY": "" }));
        stage.host.stop().await;
    }

    async fn what_is_granted_is_shown_and_what_cannot_be_used_is_refused_with_its_place(engine: Engine) {
        let scene = Scene::new(engine).await;
        let keys = format!(
            "jobs = [\"file\"]\nenv = {{ TZ = \"{SECRET}\" }}\nsecrets = {{ key = \"{SECRET}\" }}\n\
             [[plugins.capable.files]]\npath = \"here\"\nas = \"/here\"\n{}",
            http("allow = [\"GET http://h.test/v2\"]\naddresses = [\"10.0.0.0/8\"]")
        );
        std::fs::create_dir(scene.dir().join("here")).expect("it can be made");
        let host = scene.serve(&file(&keys)).await;
        let output = scene.innkeeper(&["plugin", "list"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for line in [
            "Plugin `capable` is granted:\n",
            "  http       GET http://h.test/v2\n",
            "  addresses  10.0.0.0/8\n",
            "  env        TZ\n",
            "  secrets    key\n",
            "  jobs       file\n",
            "Plugin `probe` is granted:\n  databases  app (read-write)",
        ] {
            assert!(text.contains(line), "{line:?} is not in {text}");
        }
        assert!(!text.contains(SECRET), "{text}");
        let document = scene.innkeeper_json(&["plugin", "list"]);
        let plugin = document["plugins"].as_array().unwrap().iter().find(|plugin| plugin["name"] == "capable");
        let granted = &plugin.expect("it is listed")["grants"];
        assert_eq!(granted["http"], json!(["GET http://h.test/v2"]));
        assert_eq!(granted["secrets"], json!([{ "name": "key", "hosts": [] }]));
        assert_eq!(granted["files"][0]["access"], json!("read-only"));
        let document = scene.innkeeper_json(&["check", "--offline"]);
        assert_eq!(&document["grants"]["capable"], granted);
        host.stop().await;

        let keys = format!(
            "secrets = {{ key = {{ file = \"no-such-key\" }} }}\n[[plugins.capable.files]]\npath = \"no-such-folder\"\n\
             as = \"/a\"\n{}",
            http("allow = [\"GET https://h.test\"]\nca = \"no-such.pem\"")
        );
        let config = scene.configure("inn-1", &file(&keys));
        let line = |text: &str| {
            let file = std::fs::read_to_string(&config).expect("it is there");
            1 + file.lines().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}"))
        };
        let output = scene.innkeeper(&["check", "--offline"]);
        assert_eq!(output.status.code(), Some(2));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        for (place, message) in [
            ("no-such-key", "the secret's file"),
            ("no-such-folder", "is not there: make it, or mend `path`"),
            ("no-such.pem", "`ca`"),
        ] {
            let place = format!("inn-1.toml:{}:", line(place));
            assert!(
                told.lines().any(|line| line.contains(&place) && line.contains(message)),
                "{place} {message} is not in {told}"
            );
        }
    }
}
