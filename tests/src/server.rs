//! A PostgreSQL server of one test's own, which the test may stop, break and replace.

use std::fs::{DirBuilder, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use innkeeper::database_url::DatabaseUrl;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::host::{PATIENCE, until};

/// A server. Its files go with it.
#[derive(Debug)]
pub struct OwnServer {
    folder: tempfile::TempDir,
    account: Account,
    address: SocketAddr,
    settings: Vec<String>,
    running: Option<Child>,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Connections are ended, transactions rolled back, and all is written (`SIGINT`).
    Fast,
    /// As if it had crashed: its next start recovers from its log (`SIGQUIT`).
    Immediate,
}

impl OwnServer {
    /// Makes and starts one with these further settings, such as `max_connections=10`.
    pub async fn start(settings: &[&str]) -> Self {
        let mut server = Self::without_files(settings);
        server.call("initdb", &["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]);
        server.start_again().await;
        server
    }

    /// Makes and starts a standby of this one that takes what is written there as it is written.
    /// It calls itself `standby`, for `synchronous_standby_names`.
    pub async fn standby(&self) -> Self {
        let mut standby = Self::without_files(&[]);
        let source = format!("host=127.0.0.1 port={} user=postgres", self.address.port());
        standby.call("pg_basebackup", &["--dbname", &source, "--checkpoint=fast", "--no-sync"]);
        File::create(standby.data().join("standby.signal")).expect("the standby's folder can be written to");
        standby.settings.push(format!("primary_conninfo={source} application_name=standby"));
        standby.start_again().await;
        standby
    }

    fn without_files(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let account = Account::for_server();
        let data = folder.path().join("data");
        DirBuilder::new().mode(0o700).create(&data).expect("a folder can be made");
        for owned in [folder.path(), &data] {
            account.own(owned);
        }
        // A port that was free a moment ago, and stays the server's for as long as the test.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        Self { folder, account, address, settings, running: None }
    }

    /// Starts it after [`OwnServer::stop`].
    pub async fn start_again(&mut self) {
        let mut command = self.command("postgres");
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            // What the machine loses when its power fails is no part of any of these tests.
            "fsync=off",
            "max_wal_senders=4",
            "shared_buffers=16MB",
            "wal_keep_size=64MB",
        ] {
            command.args(["-c", setting]);
        }
        command.arg("-p").arg(self.address.port().to_string());
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        self.running = Some(command.spawn().expect("PostgreSQL can be started"));
        until("the server takes connections", async || {
            let ended = self.running.as_mut().and_then(|child| child.try_wait().expect("it is ours"));
            assert!(ended.is_none(), "PostgreSQL has ended ({ended:?}):\n{}", self.log());
            PgConnection::connect(&self.url("postgres")).await.ok()
        })
        .await;
    }

    /// Stops it, and waits until it is gone.
    pub fn stop(&mut self, how: Shutdown) {
        let Some(mut child) = self.running.take() else { return };
        let signal = match how {
            Shutdown::Fast => libc::SIGINT,
            Shutdown::Immediate => libc::SIGQUIT,
        };
        let pid = i32::try_from(child.id()).expect("a process id is an i32");
        #[expect(unsafe_code, reason = "std cannot send any signal but SIGKILL")]
        // SAFETY: kill takes two integers, and the process is a child that was not waited for.
        unsafe {
            libc::kill(pid, signal);
        }
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().expect("it is ours").is_none() {
            assert!(Instant::now() < deadline, "PostgreSQL does not stop:\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Makes a standby a primary, and waits until it takes writes.
    pub async fn promote(&self) {
        self.execute("select pg_promote(wait => true)").await;
    }

    /// Runs a script in its database `postgres`.
    pub async fn execute(&self, sql: &str) {
        let mut connection = PgConnection::connect(&self.url("postgres")).await.expect("the server answers");
        // One after the other: some, such as CREATE DATABASE, do not run in a script.
        for statement in sql.split(';') {
            let shown = statement.to_owned();
            let done = sqlx::raw_sql(AssertSqlSafe(shown.clone())).execute(&mut connection).await;
            done.unwrap_or_else(|error| panic!("{error} in {shown}"));
        }
        let _ = connection.close().await;
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The superuser's URL of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        url_at(self.address, database)
    }

    /// The same as a [`DatabaseUrl`].
    #[must_use]
    pub fn database(&self, database: &str) -> DatabaseUrl {
        DatabaseUrl::Postgres(self.url(database))
    }

    /// A folder for a tablespace, which the server may write to.
    #[must_use]
    pub fn give(&self, folder: &Path) -> String {
        self.account.own(folder);
        folder.to_str().expect("a temporary folder's name is text").to_owned()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Runs a program on the data folder, to its end.
    fn call(&self, program: &str, args: &[&str]) {
        let status = self.command(program).args(args).status();
        let status = status.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(status.success(), "{program} failed ({status}):\n{}", self.log());
    }

    /// A program of PostgreSQL's, on the data folder and into the log.
    fn command(&self, program: &str) -> Command {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log"));
        let log = log.expect("the log can be written");
        let mut command = Command::new(programs().join(program));
        command.arg("-D").arg(self.data()).current_dir(self.folder.path());
        command.env("LC_ALL", "C").stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file can be opened twice")).stderr(log);
        if let Some((user, group)) = self.account.0 {
            command.gid(group).uid(user);
        }
        #[expect(unsafe_code, reason = "a server must not outlive a test that is killed")]
        // SAFETY: prctl is a system call that takes integers, and is safe between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGQUIT);
                Ok(())
            });
        }
        command
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the log of the server at {}\n{}\n---", self.address, self.log());
        }
        if let Some(mut child) = self.running.take() {
            let pid = i32::try_from(child.id()).unwrap_or(0);
            if pid > 0 {
                #[expect(unsafe_code, reason = "std cannot send any signal but SIGKILL")]
                // SAFETY: kill takes two integers, and the process is a child that was not waited for.
                unsafe {
                    libc::kill(pid, libc::SIGQUIT);
                }
            }
            let _ = child.wait();
        }
    }
}

/// The superuser's URL of a database behind an address.
#[must_use]
pub fn url_at(address: SocketAddr, database: &str) -> String {
    format!("postgres://postgres@{address}/{database}?sslmode=disable")
}

/// Whom a server runs as: the tests' own user, or, for root, whom PostgreSQL refuses, another.
#[derive(Debug)]
struct Account(Option<(u32, u32)>);

impl Account {
    fn for_server() -> Self {
        if id("-u", &[]) != Some(0) {
            return Self(None);
        }
        let known =
            ["postgres", "nobody"].iter().find_map(|name| Some((id("-u", &[name])?, id("-g", &[name])?)));
        Self(Some(known.expect("there is a user `postgres` or `nobody`: PostgreSQL does not run as root")))
    }

    fn own(&self, folder: &Path) {
        if let Some((user, group)) = self.0 {
            chown(folder, Some(user), Some(group)).expect("root may give a folder away");
        }
    }
}

/// What `id` says.
fn id(what: &str, of: &[&str]) -> Option<u32> {
    let output = Command::new("id").arg(what).args(of).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Where the programs are: in the PATH, or where Debian puts them, of which the newest.
fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut debian =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().collect::<Vec<_>>();
    debian.sort_by_key(|version| version.file_name().to_string_lossy().parse::<u32>().unwrap_or(0));
    let debian = debian.into_iter().rev().map(|version| version.path().join("bin"));
    let all = ["initdb", "postgres", "pg_basebackup"];
    let has_all = |folder: &PathBuf| all.iter().all(|program| folder.join(program).is_file());
    std::env::split_paths(&path).chain(debian).find(has_all).unwrap_or_else(|| {
        panic!("PostgreSQL's programs {all:?} are neither in the PATH nor in /usr/lib/postgresql: install its server")
    })
}
