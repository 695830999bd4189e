//! Databases for tests: each test has its own, on either engine.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use innkeeper::database_url::DatabaseUrl;
use innkeeper::store::{Store, StoreOptions, migrations};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::login::Login;

/// The engine of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A file in a temporary folder.
    Sqlite,
    /// A database on the server that `INNKEEPER_TEST_POSTGRES_URL` names.
    Postgres,
}

/// A database of one test. It is removed when the test passes, and kept when it fails.
#[derive(Debug)]
pub struct TestDatabase {
    url: DatabaseUrl,
    /// The folder of the SQLite file.
    folder: Option<TempDir>,
    /// PostgreSQL: those of [`TestDatabase::login`], which go after the database.
    logins: Mutex<Vec<Login>>,
}

/// A login of a server, made for one test.
#[derive(Clone, Debug)]
pub struct OwnLogin {
    /// Its name.
    pub role: String,
    /// The test's database, with it.
    pub url: String,
}

impl TestDatabase {
    /// A database with the store's schema, copied from a template.
    pub async fn migrated(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => {
                let database = Self::empty(engine).await;
                let DatabaseUrl::Sqlite(path) = &database.url else { unreachable!("it is SQLite") };
                std::fs::write(path, sqlite_template().await).expect("write the test's database");
                database
            }
            Engine::Postgres => {
                let template = postgres_template().await;
                create_postgres(&format!("template {template}")).await
            }
        }
    }

    /// A database with nothing in it. On SQLite the file does not exist yet.
    pub async fn empty(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => {
                let folder = tempfile::tempdir().expect("make a temporary folder");
                let url = DatabaseUrl::Sqlite(folder.path().join("test.db"));
                Self { url, folder: Some(folder), logins: Mutex::default() }
            }
            Engine::Postgres => create_postgres("template template0").await,
        }
    }

    /// Another database with the same in it. Nobody is connected to this one.
    pub async fn copy_of(other: &Self) -> Self {
        match &other.url {
            DatabaseUrl::Sqlite(from) => {
                let database = Self::empty(Engine::Sqlite).await;
                let DatabaseUrl::Sqlite(path) = &database.url else { unreachable!("it is SQLite") };
                std::fs::copy(from, path).expect("copy the test's database");
                database
            }
            DatabaseUrl::Postgres(url) => {
                let from = PgConnectOptions::from_str(url).expect("our own URL");
                create_postgres(&format!("template {}", from.get_database().expect("ours"))).await
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    /// Where it is, as it is written in a configuration.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.url {
            DatabaseUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
            DatabaseUrl::Postgres(url) => url.clone(),
        }
    }

    /// Its engine.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match self.url {
            DatabaseUrl::Sqlite(_) => Engine::Sqlite,
            DatabaseUrl::Postgres(_) => Engine::Postgres,
        }
    }

    /// PostgreSQL: makes a login that is no superuser, with a schema of its own to work in. It is
    /// dropped with the database. SQLite has no logins.
    pub async fn login(&self) -> Option<OwnLogin> {
        let DatabaseUrl::Postgres(url) = &self.url else { return None };
        let login = Login::new().await;
        let role = login.name().to_owned();
        let options = PgConnectOptions::from_str(url).expect("our own URL");
        let mut connection = options.connect().await.expect("connect to the test's database");
        run(&mut connection, format!("create schema {role} authorization {role}")).await;
        let _ = connection.close().await;
        let own = OwnLogin { role, url: login.at(&self.url) };
        self.logins.lock().expect("no holder panics").push(login);
        Some(own)
    }

    /// A store on it, with this many connections for the phases.
    pub async fn store(&self, max_connections: u32) -> Store {
        let options = StoreOptions { max_connections, create: true, ..StoreOptions::default() };
        Store::connect(&self.url, &options).await.expect("connect to the test's database")
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the test's database is kept: {}", self.url);
            if let Some(folder) = self.folder.take() {
                drop(folder.keep());
            }
        } else if let DatabaseUrl::Postgres(url) = &self.url {
            let url = url.clone();
            // A thread of its own, since a runtime cannot be entered from within another.
            let dropped = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("start a runtime").block_on(drop_postgres(&url));
            });
            dropped.join().expect("drop the test's database");
        }
    }
}

/// The login of the test server, which may create databases.
fn server() -> String {
    std::env::var("INNKEEPER_TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!(
            "INNKEEPER_TEST_POSTGRES_URL is not set: run `cargo xtask test`, which starts a PostgreSQL for \
             the tests"
        )
    })
}

async fn connect_to_server() -> PgConnection {
    let options = PgConnectOptions::from_str(&server()).expect("INNKEEPER_TEST_POSTGRES_URL is a URL");
    options.connect().await.expect("connect to the server that INNKEEPER_TEST_POSTGRES_URL names")
}

/// The server's URL with another database.
fn server_with(database: &str) -> String {
    let server = server();
    let (start, query) = server.split_once('?').map_or((server.as_str(), None), |(s, q)| (s, Some(q)));
    let authority = start.find("://").map_or(0, |at| at + 3);
    let end = start[authority..].find('/').map_or(start.len(), |at| authority + at);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}/{database}{query}", &start[..end])
}

/// Runs one statement with names in it that this module made.
async fn run(connection: &mut PgConnection, statement: String) {
    let shown = statement.clone();
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
}

async fn create_postgres(template: &str) -> TestDatabase {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    // The process id alone is used again, and the server may outlive many runs.
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let name = format!("innkeeper_test_{}_{number}_{}", std::process::id(), &unique[..8]);
    let mut connection = connect_to_server().await;
    run(&mut connection, format!("create database {name} {template}")).await;
    let _ = connection.close().await;
    TestDatabase { url: DatabaseUrl::Postgres(server_with(&name)), folder: None, logins: Mutex::default() }
}

async fn drop_postgres(url: &str) {
    let name = PgConnectOptions::from_str(url).expect("our own URL").get_database().expect("ours").to_owned();
    let mut connection = connect_to_server().await;
    run(&mut connection, format!("drop database if exists {name} with (force)")).await;
    let _ = connection.close().await;
}

/// The name of a migrated database to copy, made once for these migrations by whichever test
/// process comes first.
async fn postgres_template() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(async || {
            let name = format!("innkeeper_template_{}", migrations_hash());
            let mut connection = connect_to_server().await;
            let lock = "select pg_advisory_lock(hashtext('innkeeper_template'))";
            sqlx::query(lock).execute(&mut connection).await.expect("lock the template");
            let exists: bool =
                sqlx::query_scalar("select exists (select 1 from pg_database where datname = $1)")
                    .bind(&name)
                    .fetch_one(&mut connection)
                    .await
                    .expect("look for the template");
            if !exists {
                // Renamed when it is whole: a run that was stopped leaves no half template.
                let draft = create_postgres("template template0").await;
                let store = draft.store(1).await;
                store.migrate().await.expect("migrate the template");
                store.close().await;
                let DatabaseUrl::Postgres(url) = &draft.url else { unreachable!("it is PostgreSQL") };
                let from = PgConnectOptions::from_str(url).expect("our own URL");
                let from = from.get_database().expect("ours").to_owned();
                run(&mut connection, format!("alter database {from} rename to {name}")).await;
            }
            let _ = connection.close().await;
            name
        })
        .await
}

/// The bytes of a migrated file.
async fn sqlite_template() -> &'static [u8] {
    static TEMPLATE: OnceCell<Vec<u8>> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(async || {
            let database = TestDatabase::empty(Engine::Sqlite).await;
            let store = database.store(1).await;
            store.migrate().await.expect("migrate the template");
            // Closing the last connection moves the write-ahead log into the file.
            store.close().await;
            let DatabaseUrl::Sqlite(path) = &database.url else { unreachable!("it is SQLite") };
            std::fs::read(path).expect("read the template")
        })
        .await
}

/// A name for the state of PostgreSQL's migrations.
fn migrations_hash() -> String {
    // FNV-1a: only a name, and no reason for another dependency.
    let postgres = DatabaseUrl::Postgres(String::new());
    let hash = migrations(&postgres)
        .iter()
        .flat_map(|migration| migration.sql.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:016x}")
}

/// The folder with the migrations of an engine, for tests that look at the files.
#[must_use]
pub fn migrations_folder(engine: Engine) -> PathBuf {
    let name = match engine {
        Engine::Sqlite => "sqlite",
        Engine::Postgres => "postgres",
    };
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../migrations").join(name)
}
