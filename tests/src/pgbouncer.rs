//! pgbouncer in transaction mode, before the tests' PostgreSQL.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;

use innkeeper::database_url::DatabaseUrl;
use sqlx::Connection as _;
use sqlx::postgres::PgConnectOptions;

use crate::host::until;

/// Debian's user for whoever needs no rights: pgbouncer refuses to run as root.
const NOBODY: u32 = 65534;

/// A running pgbouncer, ended when it is dropped.
pub struct Pgbouncer {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Pgbouncer {
    /// Starts one with so few connections to the server that everybody has to share them.
    /// `settings` are lines of its configuration.
    pub async fn start(database: &DatabaseUrl, settings: &str) -> Self {
        let DatabaseUrl::Postgres(url) = database else { panic!("it is for PostgreSQL") };
        let server = PgConnectOptions::from_str(url).expect("our own URL");
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let readable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), readable).expect("it can be shown to others");
        let path = |name: &str| folder.path().join(name);
        // Free again at the end of the statement.
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free").local_addr();
        let port = port.expect("it has an address").port();
        std::fs::write(path("users"), format!("\"{}\" \"\"\n", server.get_username())).expect("write");
        let text = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = 2\nmax_client_conn = 200\n{settings}\n",
            server.get_host(),
            server.get_port(),
            path("users").display(),
        );
        std::fs::write(path("ini"), text).expect("write");
        let mut command = Command::new(program());
        let log = std::fs::File::create(path("log")).expect("write");
        command.arg(path("ini")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        #[expect(unsafe_code, reason = "std does not tell who this process is")]
        // SAFETY: geteuid takes nothing, touches nothing and cannot fail.
        if unsafe { libc::geteuid() } == 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        let child = command.spawn().expect("pgbouncer can be started");
        let bouncer = Self { child, port, folder };
        let through = bouncer.url(database);
        until("pgbouncer answers", async || {
            let options = PgConnectOptions::from_str(&through).expect("our own URL").extra_float_digits(None);
            sqlx::PgConnection::connect_with(&options).await.ok()
        })
        .await;
        bouncer
    }

    /// The URL of a database of the tests' server through it.
    #[must_use]
    pub fn url(&self, database: &DatabaseUrl) -> String {
        let DatabaseUrl::Postgres(url) = database else { panic!("it is for PostgreSQL") };
        let (login, place) = url.rsplit_once('@').expect("a login");
        let (_, database) = place.split_once('/').expect("a database");
        let database = database.split('?').next().unwrap_or_default();
        format!("{login}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }
}

impl Drop for Pgbouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.folder.path().join("log");
            eprintln!("--- pgbouncer's log\n{}\n---", std::fs::read_to_string(log).unwrap_or_default());
        }
    }
}

/// The program, as `cargo xtask test` has found or installed it.
fn program() -> PathBuf {
    let given = std::env::var_os("INNKEEPER_TEST_PGBOUNCER").map(PathBuf::from);
    let path = given.unwrap_or_else(|| PathBuf::from("/usr/sbin/pgbouncer"));
    assert!(
        path.is_file(),
        "{} is not there: run `cargo xtask test`, which installs pgbouncer, or set INNKEEPER_TEST_PGBOUNCER",
        path.display()
    );
    path
}
