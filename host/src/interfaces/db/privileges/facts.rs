//! What PostgreSQL says about a login.
//!
//! A plugin may have put functions and operators of its own in the way of names: nothing is
//! looked up but in `pg_catalog`. What a login may do in the store is asked of the store.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};
use tokio::time::timeout;

/// How long connecting and each question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection by the login that is looked at, or by the store's.
pub(super) struct Session {
    connection: PgConnection,
    pub(super) login: Login,
}

/// Who a connection is, and where it has led.
#[derive(Clone, Debug)]
pub(super) struct Login {
    /// The role that connected: what `SET ROLE` and settings of the role do, SQL can undo.
    pub(super) user: String,
    pub(super) database: String,
    server: Server,
    pub(super) superuser: bool,
    /// What a plugin needs for nothing.
    pub(super) powers: Vec<String>,
}

/// What tells servers apart, however they are named in a URL.
#[derive(Clone, Debug)]
struct Server {
    /// The same for a server and its replicas. Who may not ask does not know it.
    system: Option<i64>,
    started: String,
}

/// What a login may do in the schema of the store.
#[derive(Debug)]
pub(super) struct Rights {
    /// It is the store's own login, or may become it.
    pub(super) is_store: bool,
    /// By itself or by a role that it may take.
    pub(super) in_schema: bool,
}

/// What is wrong with the role and the schema of a grant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Names {
    Fine,
    /// The role cannot be taken, in the server's words.
    NoRole(String),
    NoSchema,
    /// The schema is there, and what is in it cannot be used.
    SchemaDenied,
}

/// What there is of a fence in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    /// None, and whether the login may make it.
    Missing { may_make: bool },
    /// It is there, and whether the login is as good as its owner.
    Made { is_owner: bool },
}

impl Login {
    pub(super) fn is_on_server_of(&self, other: &Self) -> bool {
        let (one, two) = (&self.server, &other.server);
        one.started == two.started || (one.system.is_some() && one.system == two.system)
    }
}

impl Session {
    /// Connects, and asks who that is.
    ///
    /// # Errors
    /// Why that cannot be done, without the password.
    pub(super) async fn open(url: &str) -> Result<Self, String> {
        let opening = async {
            let options = PgConnectOptions::from_str(url)?.application_name("innkeeper check");
            let mut connection = options.disable_statement_logging().connect().await?;
            let login = Login::of(&mut connection).await?;
            Ok::<_, sqlx::Error>(Self { connection, login })
        };
        match timeout(PATIENCE, opening).await {
            Ok(opened) => opened.map_err(|error| said(&error)),
            Err(_elapsed) => Err("it does not answer".to_owned()),
        }
    }

    /// What another login may do in the store, which this connection has led to.
    pub(super) async fn rights_of(&mut self, login: &str, schema: &str) -> Result<Rights, String> {
        let asked = sqlx::query(RIGHTS).bind(login).bind(schema).persistent(false);
        let row = within(asked.fetch_optional(&mut self.connection)).await?;
        // A role that the store's server does not have has no rights there.
        let Some(row) = row else { return Ok(Rights { is_store: false, in_schema: false }) };
        let get = |at: usize| row.try_get::<bool, _>(at).map_err(|error| said(&error));
        Ok(Rights { is_store: get(0)?, in_schema: get(1)? })
    }

    /// Whether transactions of this login can take the role, and use the schema then.
    pub(super) async fn names(&mut self, role: Option<&str>, schema: Option<&str>) -> Result<Names, String> {
        let begin = sqlx::raw_sql("BEGIN READ ONLY");
        within(begin.execute(&mut self.connection)).await?;
        let names = self.names_in_transaction(role, schema).await;
        let rollback = sqlx::raw_sql("ROLLBACK");
        within(rollback.execute(&mut self.connection)).await?;
        names
    }

    async fn names_in_transaction(
        &mut self,
        role: Option<&str>,
        schema: Option<&str>,
    ) -> Result<Names, String> {
        if let Some(role) = role {
            let role = format!("SET LOCAL ROLE \"{}\"", role.replace('"', "\"\""));
            let taken = within(sqlx::raw_sql(AssertSqlSafe(role)).execute(&mut self.connection)).await;
            if let Err(why) = taken {
                return Ok(Names::NoRole(why));
            }
        }
        let Some(schema) = schema else { return Ok(Names::Fine) };
        let asked = sqlx::query_scalar::<_, bool>(SCHEMA).bind(schema).persistent(false);
        let usable = within(asked.fetch_optional(&mut self.connection)).await?;
        Ok(match usable {
            Some(true) => Names::Fine,
            Some(false) => Names::SchemaDenied,
            None => Names::NoSchema,
        })
    }

    /// What there is of a fence, and what this login could do to it.
    pub(super) async fn fence(&mut self) -> Result<Fence, String> {
        let asked = sqlx::query_as::<_, (Option<bool>, bool)>(FENCE).persistent(false);
        let (is_owner, may_make) = within(asked.fetch_one(&mut self.connection)).await?;
        Ok(is_owner.map_or(Fence::Missing { may_make }, |is_owner| Fence::Made { is_owner }))
    }

    pub(super) async fn close(self) {
        let _closed = timeout(PATIENCE, self.connection.close()).await;
    }
}

impl Login {
    async fn of(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        sqlx::raw_sql("SET search_path = pg_catalog").execute(&mut *connection).await?;
        let row = sqlx::query(LOGIN).persistent(false).fetch_one(&mut *connection).await?;
        let system = "SELECT system_identifier FROM pg_catalog.pg_control_system()";
        let system = sqlx::query_scalar(system).persistent(false).fetch_one(connection).await.ok();
        let (may_create_roles, may_replicate) = (row.try_get(4)?, row.try_get(5)?);
        let mut powers: Vec<String> = row.try_get(6)?;
        powers.extend(
            [(may_create_roles, "CREATEROLE"), (may_replicate, "REPLICATION")]
                .into_iter()
                .filter(|(may, _)| *may)
                .map(|(_, attribute): (bool, &str)| attribute.to_owned()),
        );
        Ok(Self {
            user: row.try_get(0)?,
            database: row.try_get(1)?,
            server: Server { system, started: row.try_get(2)? },
            superuser: row.try_get(3)?,
            powers,
        })
    }
}

/// A superuser is a member of every role, and one who may become a superuser is as good as one.
const LOGIN: &str = "
    SELECT session_user::text,
           current_database()::text,
           extract(epoch FROM pg_postmaster_start_time())::text,
           EXISTS (SELECT FROM pg_roles other WHERE other.rolsuper
                    AND pg_has_role(login.oid, other.oid, 'MEMBER')),
           login.rolcreaterole,
           login.rolreplication,
           ARRAY(SELECT power.rolname::text FROM pg_roles power
                  WHERE power.rolname IN ('pg_execute_server_program', 'pg_read_server_files',
                                          'pg_write_server_files', 'pg_signal_backend')
                    AND pg_has_role(login.oid, power.oid, 'MEMBER')
                  ORDER BY power.rolname)
      FROM pg_roles login
     WHERE login.rolname = session_user";

/// The roles that the login may take are asked one by one: what is not inherited is theirs
/// alone.
const RIGHTS: &str = "
    SELECT EXISTS (SELECT FROM pg_roles store WHERE store.rolname = session_user
                    AND pg_has_role(login.oid, store.oid, 'MEMBER')),
           EXISTS (SELECT FROM pg_roles role, pg_namespace schema
                    WHERE schema.nspname = $2
                      AND pg_has_role(login.oid, role.oid, 'MEMBER')
                      AND (has_schema_privilege(role.oid, schema.oid, 'USAGE, CREATE')
                           OR EXISTS (SELECT FROM pg_class item
                                       WHERE item.relnamespace = schema.oid
                                         AND item.relkind IN ('r', 'p', 'v', 'm', 'f')
                                         AND (has_table_privilege(role.oid, item.oid,
                                                'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
                                              OR has_any_column_privilege(role.oid, item.oid,
                                                'SELECT, INSERT, UPDATE, REFERENCES')))))
      FROM pg_roles login
     WHERE login.rolname = $1";

const FENCE: &str = "
    SELECT (SELECT pg_has_role(session_user, fence.nspowner, 'MEMBER') FROM pg_namespace fence
             WHERE fence.nspname = 'innkeeper_fence'),
           has_database_privilege(session_user, current_database(), 'CREATE')";

const SCHEMA: &str = "
    SELECT has_schema_privilege(schema.oid, 'USAGE') FROM pg_namespace schema WHERE schema.nspname = $1";

/// The database that a URL names, or that the server takes for it.
pub(super) fn database_named(url: &str) -> Option<String> {
    let options = PgConnectOptions::from_str(url).ok()?;
    Some(options.get_database().unwrap_or(options.get_username()).to_owned())
}

async fn within<T>(asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, String> {
    match timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| said(&error)),
        Err(_elapsed) => Err("it does not answer".to_owned()),
    }
}

/// The server's words, which hold no password.
fn said(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}
