//! A host under test: the real binary, with its own store and its own application database.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use innkeeper::execution::{State, Trigger};
use innkeeper::job::Name;
use innkeeper::store::{ExecutionRecord, NewExecution, Store};
use serde_json::Value;
use uuid::Uuid;

use crate::database::{Engine, TestDatabase};

/// No condition is waited for longer. Reaching it is a failure, never a way to pass.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The folder, the databases and the configuration of one test.
pub struct Scene {
    /// On which engine both databases are.
    pub engine: Engine,
    /// The host's own records.
    pub store: TestDatabase,
    /// What the plugins are granted as `app`.
    pub app: TestDatabase,
    dir: tempfile::TempDir,
    /// The component of the plugin `probe`.
    component: PathBuf,
    base: Vec<(&'static str, String)>,
}

/// Has the hosts of this folder use the code that those of other tests have compiled, unless the test
/// has made a folder for it.
fn share_compiled_code(data: &Path) {
    use std::os::unix::fs::DirBuilderExt as _;
    let shared = binary().with_file_name("compiled-for-tests");
    // Another test may have made it.
    let _ = std::fs::DirBuilder::new().mode(0o700).create(&shared);
    std::fs::create_dir_all(data).expect("the folder can be made");
    let own = data.join("compiled");
    if !own.exists() {
        std::os::unix::fs::symlink(shared, own).expect("a link can be made");
    }
}

/// A host process.
pub struct TestHost {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Scene {
    /// Makes the databases; the store is migrated, the application's database is empty.
    pub async fn new(engine: Engine) -> Self {
        Self {
            engine,
            store: TestDatabase::migrated(engine).await,
            app: TestDatabase::empty(engine).await,
            dir: tempfile::tempdir().expect("a temporary folder can be made"),
            component: guest("probe"),
            base: vec![
                ("host", "concurrency = 40\nsession_timeout = \"3s\"\ndrain_timeout = \"20s\"".to_owned()),
                ("store", "max_connections = 1".to_owned()),
                ("databases.app", "max_connections = 40".to_owned()),
                ("plugins.probe", String::new()),
                ("grant", String::new()),
            ],
        }
    }

    /// Replaces the lines of one of the sections `host`, `store`, `databases.app`,
    /// `plugins.probe` and `grant`; names, URLs and paths are put in by the scene.
    #[must_use]
    pub fn with(mut self, section: &'static str, lines: &str) -> Self {
        for (name, text) in &mut self.base {
            if *name == section {
                lines.clone_into(text);
            }
        }
        self
    }

    /// Has the plugin `probe` be of this file.
    #[must_use]
    pub fn with_component(mut self, component: &Path) -> Self {
        component.clone_into(&mut self.component);
        self
    }

    /// The test's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes the configuration of a host: the base, and `jobs` (TOML).
    pub fn configure(&self, host: &str, jobs: &str) -> PathBuf {
        let section = |name: &str| {
            let found = self.base.iter().find(|(section, _)| *section == name);
            found.map(|(_, text)| text.clone()).unwrap_or_default()
        };
        let text = format!(
            "[host]\nname = \"{host}\"\ndata_dir = \"data\"\n{}\n\n[store]\nurl = {:?}\n{}\n\n\
             [databases.app]\nurl = {:?}\n{}\n\n[plugins.probe]\ncomponent = {:?}\n{}\n\n\
             [[plugins.probe.databases]]\nname = \"app\"\n{}\n\n{jobs}\n",
            section("host"),
            self.store.address(),
            section("store"),
            self.app.address(),
            section("databases.app"),
            self.component,
            section("plugins.probe"),
            section("grant"),
        );
        let path = self.dir.path().join(format!("{host}.toml"));
        std::fs::write(&path, text).expect("the configuration can be written");
        share_compiled_code(&self.dir.path().join("data"));
        path
    }

    /// Starts a host with these jobs and waits until it serves.
    pub async fn serve(&self, jobs: &str) -> TestHost {
        self.serve_as("inn-1", jobs).await
    }

    /// The same with a host name.
    pub async fn serve_as(&self, host: &str, jobs: &str) -> TestHost {
        let config = self.configure(host, jobs);
        let host = TestHost::start(&config);
        host.wait_for_log("serving").await;
        host
    }

    /// Runs the binary on the configuration of `inn-1`, to its end.
    pub fn innkeeper(&self, args: &[&str]) -> Output {
        let config = self.dir.path().join("inn-1.toml");
        Command::new(binary())
            .arg("--config")
            .arg(config)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("the binary can be started")
    }

    /// The same, with `--json` and an exit code of 0; returns the document.
    pub fn innkeeper_json(&self, args: &[&str]) -> Value {
        let output = self.innkeeper(&[args, &["--json"]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "innkeeper {args:?} failed: {text}{complaint}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// Enqueues an execution by the command line and returns its id.
    pub fn run(&self, job: &str, args: &Value) -> Uuid {
        let document = self.innkeeper_json(&["job", "run", job, "--args", &args.to_string()]);
        document["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{document}"))
    }

    /// A store of the test's own, to look and to enqueue with.
    pub async fn open_store(&self) -> Store {
        self.store.store(2).await
    }

    /// Enqueues an execution past the command line, which is much faster.
    pub async fn enqueue(&self, store: &Store, job: &str, args: &Value) -> Uuid {
        let execution = NewExecution {
            job: &Name::new(job).expect("a name"),
            args: Some(args),
            triggered_by: Trigger::Manual,
            run_at: None,
            unique_key: None,
            by: None,
        };
        store.enqueue(&execution).await.expect("it is enqueued").id
    }

    /// Waits until the execution is in one of the states, and returns it.
    pub async fn wait_for(&self, store: &Store, id: Uuid, states: &[State]) -> ExecutionRecord {
        let mut last = None;
        until(&format!("execution {id} is {states:?}"), async || {
            let record = store.execution(id).await.expect("the store answers")?;
            last = Some(record.state);
            states.contains(&record.state).then_some(record)
        })
        .await
    }

    /// Waits until the execution has ended for good.
    pub async fn wait_for_end(&self, store: &Store, id: Uuid) -> ExecutionRecord {
        self.wait_for(store, id, &[State::Succeeded, State::Failed]).await
    }
}

impl TestHost {
    /// Starts the real binary on a configuration, its log collected.
    #[must_use]
    pub fn start(config: &Path) -> Self {
        Self::start_by(&[], config)
    }

    /// The same by a program that becomes what its arguments name, such as `ip netns exec NAME`.
    #[must_use]
    pub fn start_by(by: &[&str], config: &Path) -> Self {
        Self::spawn(by, config, "innkeeper=debug")
    }

    /// Starts the real binary, which tells of its start and its end only: for one that runs for
    /// so long that its log would fill the memory of this process.
    #[must_use]
    pub fn start_quiet(config: &Path) -> Self {
        Self::spawn(&[], config, "innkeeper=error,innkeeper::daemon=info")
    }

    fn spawn(by: &[&str], config: &Path, level: &str) -> Self {
        let binary = binary();
        let mut words = by.iter().map(OsStr::new).chain([binary.as_os_str()]);
        let mut child = Command::new(words.next().expect("there is the binary at least"))
            .args(words)
            .args(["serve", "--config"])
            .arg(config)
            .env("INNKEEPER_LOG", level)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be started");
        let stderr = child.stderr.take().expect("standard error is piped");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().expect("no holder panics").push(line);
            }
        });
        Self { child, log }
    }

    /// All that it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().expect("no holder panics").join("\n")
    }

    /// Waits until a line of the log contains `text`.
    pub async fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "{text:?} was not logged:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The address that it listens on, which its log tells.
    pub async fn address(&self) -> SocketAddr {
        const TOLD: &str = "listening address=";
        self.wait_for_log(TOLD).await;
        let log = self.log();
        let told = log.split(TOLD).nth(1).and_then(|rest| rest.split_whitespace().next());
        told.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no address in {log}"))
    }

    /// The most memory that it has had, in bytes.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM") * 1024
    }

    /// The memory that it has now, in bytes: resident, and of that what is backed by no file.
    #[must_use]
    pub fn memory(&self) -> (u64, u64) {
        (self.status("VmRSS") * 1024, self.status("RssAnon") * 1024)
    }

    /// Its threads.
    #[must_use]
    pub fn threads(&self) -> u64 {
        self.status("Threads")
    }

    /// A number that Linux tells of the process; memory is in KiB.
    fn status(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("Linux tells of its processes");
        let number = |line: &str| {
            let rest = line.strip_prefix(name)?.strip_prefix(':')?;
            rest.trim().trim_end_matches(" kB").parse().ok()
        };
        status.lines().find_map(number).unwrap_or_else(|| panic!("it is not running: {status}"))
    }

    /// The files that it has open, each as often as it is open.
    #[must_use]
    pub fn open_files(&self) -> Vec<String> {
        let folder = format!("/proc/{}/fd", self.child.id());
        let open = std::fs::read_dir(folder).expect("Linux tells of its processes");
        let file = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_link(entry.ok()?.path()).ok();
        open.filter_map(file).map(|path| path.display().to_string()).collect()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a process id is an i32");
        #[expect(unsafe_code, reason = "std cannot send any signal but SIGKILL")]
        // SAFETY: kill takes two integers, and the process is a child that was not waited for.
        let status = unsafe { libc::kill(pid, signal) };
        assert_eq!(status, 0, "signal {signal} was not sent");
    }

    /// SIGSTOP, and waits until none of its threads runs: on a busy machine they may go on for
    /// some time after the signal was sent.
    pub async fn suspend(&self) {
        self.signal(libc::SIGSTOP);
        until("every thread of the host is stopped", async || self.is_stopped().then_some(())).await;
    }

    fn is_stopped(&self) -> bool {
        let folder = format!("/proc/{}/task", self.child.id());
        let threads = std::fs::read_dir(folder).expect("Linux tells of its processes");
        let is_stopped = |thread: std::io::Result<std::fs::DirEntry>| {
            let path = thread.expect("the folder can be read").path().join("stat");
            let stat = std::fs::read_to_string(path).unwrap_or_default();
            // The name before the state is in brackets, and may have any in it.
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        };
        threads.into_iter().all(is_stopped)
    }

    /// Waits until it has exited by itself.
    pub async fn wait(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return (status, self.log());
            }
            assert!(Instant::now() < deadline, "the host did not exit:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGTERM, and waits for a clean end.
    pub async fn stop(self) -> String {
        self.signal(libc::SIGTERM);
        let (status, log) = self.wait().await;
        assert!(status.success(), "the host ended with {status}:\n{log}");
        log
    }
}

/// A test that failed leaves no host behind; its log tells why it failed.
impl Drop for TestHost {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the host's log\n{}\n---", self.log());
        }
    }
}

/// Asks until there is an answer. Fails with `what` when [`PATIENCE`] is over.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "it did not come true in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The host's binary, as `cargo xtask test` has built it.
#[must_use]
pub fn binary() -> PathBuf {
    built("INNKEEPER_BIN", "innkeeper")
}

/// A guest's component, as `cargo xtask test` has built it.
#[must_use]
pub fn guest(name: &str) -> PathBuf {
    let folder = std::env::var_os("INNKEEPER_GUESTS")
        .map_or_else(|| target().join("wasm32-wasip2/plugin"), PathBuf::from);
    let path = folder.join(format!("{name}.wasm"));
    assert!(path.is_file(), "{} is not there: run `cargo xtask test`, which builds it", path.display());
    path
}

fn built(variable: &str, name: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| target().join("debug").join(name), PathBuf::from);
    assert!(path.is_file(), "{} is not there: run `cargo xtask test`, which builds it", path.display());
    path
}

/// The target folder that this test was built into: `target/debug/deps/test-…`.
fn target() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its file");
    test.ancestors().nth(3).expect("a test is three folders below the target folder").to_owned()
}
