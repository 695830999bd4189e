//! A PostgreSQL of our own: found or installed, started in a temporary folder, and gone again.

mod install;

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

pub use install::{Programs, find_or_install};

use crate::process;

/// How long the server may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether the server is ready, or gone.
const INTERVAL: Duration = Duration::from_millis(20);

/// A socket's path has at most 107 bytes on Linux; PostgreSQL adds `/.s.PGSQL.65535.lock`.
const LONGEST_SOCKET_FOLDER: usize = 85;

/// What the server is to be like.
pub struct Settings {
    /// Whether a commit waits for the disk. Off is several times as fast and as good for
    /// tests: only a crash of the machine would show the difference.
    pub fsync: bool,
    /// Connections in all.
    pub max_connections: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { fsync: false, max_connections: 300 }
    }
}

/// A running server. It is stopped, and its folder removed, at the latest when this is
/// dropped; and the system stops it when this program is killed.
pub struct Server {
    child: Child,
    folder: Folder,
    url: String,
}

impl Server {
    /// Starts a server and waits until it takes connections.
    pub fn start(programs: &Programs, settings: &Settings) -> Result<Self> {
        let user = Account::for_server()?;
        let folder = Folder::new(user.as_ref())?;
        initialise(programs, &folder, user.as_ref())?;
        // Between the choice of a free port and the server's start another program may take it.
        for _ in 0..4 {
            let port = free_port()?;
            let mut server = Server::spawn(programs, settings, &folder, user.as_ref(), port)?;
            match wait_until_ready(&mut server, &folder) {
                Ok(true) => {
                    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
                    return Ok(Self { child: server, folder, url });
                }
                Ok(false) if folder.log().contains("could not bind") => {}
                Ok(false) => bail!("PostgreSQL did not start:\n{}", folder.end_of_log()),
                Err(error) => {
                    stop(&mut server);
                    return Err(error);
                }
            }
        }
        bail!("PostgreSQL found no free port on 127.0.0.1:\n{}", folder.end_of_log())
    }

    /// The superuser's URL of the server, with its database `postgres`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops the server and removes its folder.
    ///
    /// # Errors
    /// Where it had stopped before, with the end of its log.
    pub fn stop(mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                bail!("PostgreSQL has ended before it was stopped ({status}):\n{}", self.folder.end_of_log())
            }
        }
    }

    fn spawn(
        programs: &Programs,
        settings: &Settings,
        folder: &Folder,
        user: Option<&Account>,
        port: u16,
    ) -> Result<Child> {
        let on_or_off = if settings.fsync { "on" } else { "off" };
        let sockets = match folder.0.to_str() {
            Some(path) if path.len() <= LONGEST_SOCKET_FOLDER => path,
            _ => "",
        };
        let mut command = Command::new(&programs.postgres);
        command.arg("-D").arg(folder.data());
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            format!("unix_socket_directories={sockets}"),
            format!("max_connections={}", settings.max_connections),
            format!("fsync={on_or_off}"),
            format!("full_page_writes={on_or_off}"),
            "timezone=UTC".to_owned(),
            "log_timezone=UTC".to_owned(),
        ] {
            command.args(["-c", &setting]);
        }
        prepare(&mut command, folder, user)?;
        // SIGQUIT ends a server at once, and with it its workers.
        process::spawn_mortal(&mut command, libc::SIGQUIT)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// Ends a server without writing anything to its files: they are removed next.
fn stop(server: &mut Child) {
    let deadline = Instant::now() + PATIENCE;
    if let Ok(process) = i32::try_from(server.id())
        && matches!(server.try_wait(), Ok(None))
    {
        process::send(libc::SIGQUIT, process);
    }
    while matches!(server.try_wait(), Ok(None)) && Instant::now() < deadline {
        std::thread::sleep(INTERVAL);
    }
    let _ = server.kill();
    let _ = server.wait();
}

fn initialise(programs: &Programs, folder: &Folder, user: Option<&Account>) -> Result<()> {
    let mut command = Command::new(&programs.initdb);
    command.arg("--pgdata").arg(folder.data());
    command.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]);
    prepare(&mut command, folder, user)?;
    let status = process::run(&mut command)?;
    ensure!(status.success(), "{} failed ({status}):\n{}", programs.initdb.display(), folder.end_of_log());
    Ok(())
}

/// What `initdb` and `postgres` have in common: whom they run as, where, and their log.
fn prepare(command: &mut Command, folder: &Folder, user: Option<&Account>) -> Result<()> {
    let log = File::options().create(true).append(true).open(folder.0.join("log"))?;
    command.current_dir(&folder.0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C").env("HOME", &folder.0);
    if let Some(user) = user {
        // std drops root's further groups along with its user.
        command.gid(user.group).uid(user.user);
    }
    Ok(())
}

/// Waits until the server takes connections: `false` if it has ended instead.
fn wait_until_ready(server: &mut Child, folder: &Folder) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if server.try_wait()?.is_some() {
            return Ok(false);
        }
        if folder.says_ready() {
            return Ok(true);
        }
        process::check_interrupted()?;
        if Instant::now() > deadline {
            bail!("PostgreSQL is not ready after {PATIENCE:?}:\n{}", folder.end_of_log());
        }
        std::thread::sleep(INTERVAL);
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port on 127.0.0.1 is free")?;
    Ok(listener.local_addr()?.port())
}

/// The temporary folder of a server, removed when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(owner: Option<&Account>) -> Result<Self> {
        let parent = std::env::temp_dir();
        for number in 0..100 {
            let path = parent.join(format!("innkeeper-postgres-{}-{number}", std::process::id()));
            // Fails where anything of this name is there, so that nobody can put a link in the way.
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let folder = Self(path);
                    if let Some(owner) = owner {
                        std::os::unix::fs::chown(&folder.0, Some(owner.user), Some(owner.group))
                            .with_context(|| format!("{} cannot be given away", folder.0.display()))?;
                    }
                    return Ok(folder);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("{} cannot be made", path.display()));
                }
            }
        }
        bail!("{} is full of folders named innkeeper-postgres-…", parent.display())
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    fn log(&self) -> String {
        fs::read(self.0.join("log")).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    fn end_of_log(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// The eighth line of the server's lock file is its status; `pg_ctl start` reads it too.
    fn says_ready(&self) -> bool {
        let lock = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        lock.lines().nth(7).is_some_and(|status| status.trim() == "ready")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("xtask: {} could not be removed: {error}", self.0.display());
        }
    }
}

/// A user of the system.
struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// Whom the server runs as: nobody else for an ordinary user, and for root, whom
    /// PostgreSQL refuses, its own user or `nobody`.
    fn for_server() -> Result<Option<Self>> {
        if id(&["-u"]) != Some(0) {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            if let (Some(user), Some(group)) = (id(&["-u", name]), id(&["-g", name])) {
                return Ok(Some(Self { user, group }));
            }
        }
        bail!(
            "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`. \
             Call this as an ordinary user"
        )
    }
}

/// What `id` says.
fn id(args: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(args).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// True where both programs of a server are in a folder.
fn has_server(folder: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|program| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    /// The first message of PostgreSQL's protocol 3.0, and the kind of the first answer.
    fn connect(url: &str) -> std::io::Result<u8> {
        let address = url.split(['@', '/']).nth(3).unwrap_or_default();
        let parameters = b"user\0postgres\0database\0postgres\0\0";
        let mut message = u32::try_from(parameters.len() + 8).unwrap().to_be_bytes().to_vec();
        message.extend(196_608_u32.to_be_bytes());
        message.extend(parameters);
        let mut connection = TcpStream::connect(address)?;
        connection.write_all(&message)?;
        let mut answer = [0];
        connection.read_exact(&mut answer)?;
        Ok(answer[0])
    }

    #[test]
    fn a_server_takes_connections_until_it_is_stopped_and_leaves_nothing_behind() {
        let programs = find_or_install().unwrap();
        let server = Server::start(&programs, &Settings::default()).unwrap();
        let (url, folder) = (server.url().to_owned(), server.folder.0.clone());
        assert_eq!(connect(&url).unwrap(), b'R', "the server asks for nothing but a name");
        server.stop().unwrap();
        assert!(connect(&url).is_err());
        assert!(!folder.exists());
    }

    #[test]
    fn a_server_that_ended_by_itself_is_reported_with_its_log() {
        let programs = find_or_install().unwrap();
        let mut server = Server::start(&programs, &Settings::default()).unwrap();
        process::send(libc::SIGINT, i32::try_from(server.child.id()).unwrap());
        server.child.wait().unwrap();
        let error = server.stop().unwrap_err().to_string();
        assert!(error.contains("database system is shut down"), "{error}");
    }

    #[test]
    fn a_server_that_cannot_start_says_why() {
        let programs = find_or_install().unwrap();
        let settings = Settings { max_connections: 0, ..Settings::default() };
        let error = Server::start(&programs, &settings).err().expect("no connection is too few").to_string();
        assert!(error.contains("max_connections"), "{error}");
    }
}
