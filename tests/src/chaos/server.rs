//! A PostgreSQL of a test's own, for tests that stop it in the middle of everything.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// Where Debian and its children put PostgreSQL: a folder for each version.
const DEBIAN_FOLDER: &str = "/usr/lib/postgresql";

/// How long the server may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that writes to the disk as in production, in a folder and on a port of its own. It is
/// ended, and its folder removed, when this is dropped.
#[derive(Debug)]
pub(super) struct OwnServer {
    programs: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    user: Option<Account>,
    child: Option<Child>,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Sessions are ended, and what is open is rolled back. The next start needs no recovery.
    Fast,
    /// At once. The next start recovers from the log.
    Immediate,
}

impl OwnServer {
    /// Makes a server and starts it.
    ///
    /// # Errors
    /// Where there is no PostgreSQL on this machine, or it does not start.
    pub(super) async fn start() -> Result<Self> {
        let programs = find()?;
        let user = Account::for_server()?;
        let folder = tempfile::Builder::new().prefix("innkeeper-server-").tempdir()?;
        if let Some(user) = &user {
            std::os::unix::fs::chown(folder.path(), Some(user.user), Some(user.group))?;
        }
        let port = TcpListener::bind("127.0.0.1:0").context("no port is free")?.local_addr()?.port();
        let mut server = Self { programs, folder, port, user, child: None };
        let mut initdb = server.command("initdb")?;
        initdb.arg("--pgdata").arg(server.data());
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]);
        let status = initdb.status().context("initdb could not be started")?;
        ensure!(status.success(), "initdb failed ({status}):\n{}", server.log());
        server.resume().await?;
        Ok(server)
    }

    /// The port on 127.0.0.1.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's URL of a database.
    pub(super) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Starts it again, and waits until it takes connections.
    ///
    /// # Errors
    /// Where it does not start.
    pub(super) async fn resume(&mut self) -> Result<()> {
        let mut command = self.command("postgres")?;
        command.arg("-D").arg(self.data());
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.port),
            "unix_socket_directories=".to_owned(),
            "max_connections=200".to_owned(),
            "track_commit_timestamp=on".to_owned(),
            "timezone=UTC".to_owned(),
            "log_timezone=UTC".to_owned(),
        ] {
            command.args(["-c", &setting]);
        }
        // A server that recovers writes every file of its folder to the disk first, one after the
        // other, for seconds; since version 14 it can do so at once.
        if self.version()? >= 14 {
            command.args(["-c", "recovery_init_sync_method=syncfs"]);
        }
        let mut child = command.spawn().context("PostgreSQL could not be started")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("PostgreSQL did not start ({status}):\n{}", self.log());
            }
            // The eighth line of the server's lock file is its status; `pg_ctl start` reads it too.
            let lock = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            if lock.lines().nth(7).is_some_and(|status| status.trim() == "ready") {
                self.child = Some(child);
                return Ok(());
            }
            if Instant::now() > deadline {
                end(&mut child);
                bail!("PostgreSQL is not ready after {PATIENCE:?}:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops it, and waits until it is gone.
    ///
    /// # Errors
    /// Where it had ended by itself, or does not end.
    pub(super) async fn stop(&mut self, how: Stop) -> Result<()> {
        let mut child = self.child.take().context("PostgreSQL is stopped already")?;
        if let Some(status) = child.try_wait()? {
            bail!("PostgreSQL has ended by itself ({status}):\n{}", self.log());
        }
        send(
            child.id(),
            match how {
                Stop::Fast => libc::SIGINT,
                Stop::Immediate => libc::SIGQUIT,
            },
        );
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                end(&mut child);
                bail!("PostgreSQL did not stop within {PATIENCE:?}:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn version(&self) -> Result<u32> {
        let version = std::fs::read_to_string(self.data().join("PG_VERSION"))?;
        version.trim().parse().with_context(|| format!("PostgreSQL {version} is not known"))
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The end of what it has logged.
    pub(super) fn log(&self) -> String {
        let log = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn command(&self, program: &str) -> Result<Command> {
        let folder = self.folder.path();
        let log = File::options().create(true).append(true).open(folder.join("log"))?;
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").env("HOME", folder);
        if let Some(user) = &self.user {
            command.gid(user.group).uid(user.user);
        }
        Ok(command)
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end(child);
        }
    }
}

/// Ends a server without writing anything to its files.
fn end(child: &mut Child) {
    if let Ok(None) = child.try_wait() {
        send(child.id(), libc::SIGQUIT);
        let _ = child.wait();
    }
}

/// Sends a signal to a process.
pub(super) fn send(pid: u32, signal: i32) {
    let Ok(pid) = i32::try_from(pid) else { return };
    #[expect(unsafe_code, reason = "std cannot send any signal but SIGKILL")]
    // SAFETY: kill takes two integers, and the process is a child that was not waited for.
    unsafe {
        libc::kill(pid, signal);
    }
}

/// The folder of the newest PostgreSQL: in the PATH, or where Debian puts it.
fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(DEBIAN_FOLDER)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    let mut folders =
        std::env::split_paths(&path).chain(versions.into_iter().rev().map(|(_, folder)| folder));
    let has_both = |folder: &Path| ["initdb", "postgres"].iter().all(|name| folder.join(name).is_file());
    folders.find(|folder| has_both(folder)).with_context(|| {
        format!(
            "this test stops and starts a PostgreSQL of its own, and `initdb` and `postgres` are neither in the \
             PATH nor in {DEBIAN_FOLDER}: install a server (Debian and Ubuntu: `apt-get install postgresql`)"
        )
    })
}

/// A user of the system.
#[derive(Clone, Copy, Debug)]
struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// Whom the server runs as: nobody else for an ordinary user, and for root, whom PostgreSQL
    /// refuses, its own user or `nobody`.
    fn for_server() -> Result<Option<Self>> {
        if id(&["-u"]) != Some(0) {
            return Ok(None);
        }
        let accounts = ["postgres", "nobody"].map(|name| Some((id(&["-u", name])?, id(&["-g", name])?)));
        let found = accounts.into_iter().flatten().next();
        let (user, group) = found.context("PostgreSQL does not run as root: there is no user `postgres`")?;
        Ok(Some(Self { user, group }))
    }
}

/// What `id` says.
fn id(args: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(args).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
