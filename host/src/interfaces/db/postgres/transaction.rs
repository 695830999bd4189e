//! The messages that begin and end a transaction: one round trip each.
//!
//! With the end of a transaction goes everything that a session may have kept of it, in the
//! same message: a round trip of its own would cost a fourth of a whole call.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Connection as _, Either, Row as _};
use tokio::time::timeout;

use super::{Connection, fence};
use crate::interfaces::db::error::Failure;
use crate::interfaces::db::grant::Grant;
use crate::interfaces::db::work::PATIENCE;
use crate::interfaces::db::work::{Begin, Left, Purpose};
use crate::interfaces::db::{Error, ErrorKind, Isolation, error};

/// Undoes what outlives a transaction: session settings, role and login, cursors WITH HOLD,
/// LISTEN, temporary tables, `currval`, advisory locks. Not `DISCARD ALL`, which would drop the
/// prepared statements that sqlx believes in, and cannot stand beside other statements.
///
/// `RESET ALL` leaves out the login and the role. The role comes last, since resetting the
/// login undoes it in the server but not in the setting, which would come back later.
const RESET: &str = "RESET SESSION AUTHORIZATION; RESET ALL; RESET ROLE; CLOSE ALL; UNLISTEN *; \
                     DISCARD TEMP; DISCARD SEQUENCES; SELECT pg_catalog.pg_advisory_unlock_all()";

/// Fails where somebody has prepared a statement by SQL: a function can put one of its own in the
/// place of one that sqlx keeps, by its name. Asked when a connection passes from one execution to
/// the next of the same plugin, since it is too dear for every call.
///
/// In a transaction of its own: after its snapshot no other isolation could be chosen.
const UNTOUCHED: &str = "BEGIN; SELECT pg_catalog.int4div(1, pg_catalog.int4(NOT EXISTS (\
                         SELECT FROM pg_catalog.pg_prepared_statement() WHERE from_sql))); COMMIT; ";

/// How much longer than the host the server waits before it ends a statement or an idle
/// transaction by itself. It only matters where the host is gone, or hangs.
const BACKSTOP: Duration = Duration::from_secs(10);

/// What became of several statements in one message.
struct Sent {
    /// How many of them the server has carried out.
    done: usize,
    result: Result<(), sqlx::Error>,
}

impl Connection {
    /// Begins a transaction. Where that fails, none is open, and the connection is as new.
    pub(in crate::interfaces::db) async fn begin(&mut self, begin: &Begin<'_>) -> Result<(), Failure> {
        if self.schema_changed {
            // Now and not with the commit, whose answer nothing that comes after may change.
            self.forget_statements().await?;
            self.schema_changed = false;
        }
        self.number += 1;
        self.is_marked = matches!(begin.purpose, Purpose::Guest(_));
        self.pass = begin.pass();
        self.savepoint = 0;
        let Err(failure) = self.try_begin(begin).await else { return Ok(()) };
        if failure.broken {
            return Err(failure);
        }
        match self.rollback().await {
            Ok(Left::Nothing) => Err(failure),
            _ => Err(Failure { broken: true, ..failure }),
        }
    }

    async fn try_begin(&mut self, begin: &Begin<'_>) -> Result<(), Failure> {
        let role = begin.grant.role.as_deref();
        if let Some(role) = role
            && (role == "none" || role.contains('\0'))
        {
            return Err(no_role(role, begin.grant).into());
        }
        let own = self.session.replace(begin.caller.session);
        // What an execution has done to its own statements it may find again, and no other one.
        let check = if own.is_none_or(|own| own == begin.caller.session) { "" } else { UNTOUCHED };
        let first = if check.is_empty() { 0 } else { UNTOUCHED.matches(';').count() };
        let sent = self.send(format!("{check}{}", begin_message(begin, self.number)), usize::MAX).await;
        match (sent.result, role) {
            (Ok(()), _) => {}
            // Closed, and another connection is taken.
            (Err(error), _) if sent.done < first => {
                return Err(Failure { broken: true, ..Failure::from(error) });
            }
            // The statement after BEGIN.
            (Err(error), Some(role)) if sent.done == first + 1 => {
                return Err(self.refused_role(role, begin.grant, error));
            }
            (Err(error), _) => return Err(error.into()),
        }
        match &begin.grant.schema {
            Some(schema) if !self.schema_found => self.look_for_schema(schema, begin.grant).await,
            _ => Ok(()),
        }
    }

    /// Commits, if the transaction is the one that [`Self::begin`] has begun, and has not
    /// failed. `COMMIT` alone would answer that all is well.
    ///
    /// The transaction of one statement has no mark, which would cost as much as the statement: a
    /// savepoint can be made in a transaction that is open and has not failed, and nowhere else.
    pub(in crate::interfaces::db) async fn commit(&mut self) -> Result<Left, Failure> {
        // The division fails where the setting is another one: it is undone with the
        // transaction that it was made in. Every name has its schema, since the plugin may
        // have put its own functions before the server's.
        let mark = || {
            format!(
                "SELECT pg_catalog.int4div(1, pg_catalog.int4(pg_catalog.texteq(\
                 pg_catalog.current_setting('innkeeper.transaction'), '{}')))",
                self.number
            )
        };
        let pass = self.pass.map(fence::statement);
        // A savepoint comes last: what is written behind it costs a transaction id of its own.
        let checks: Vec<String> = if self.is_marked {
            [Some(mark()), pass].into_iter().flatten().collect()
        } else {
            [pass, Some("SAVEPOINT innkeeper_commit".to_owned())].into_iter().flatten().collect()
        };
        self.cursors.clear();
        let committed = checks.len() + 1;
        let sent = self.send(format!("{}; COMMIT; {RESET}", checks.join("; ")), committed).await;
        match sent.result {
            Ok(()) if sent.done >= committed => Ok(self.left()),
            // Whatever came after the answer to COMMIT, it is committed.
            Err(_) if sent.done >= committed => Ok(Left::Something),
            Err(error) if sent.done < checks.len() => Err(not_committed(error.into())),
            Err(error) => Err(error.into()),
            Ok(()) => {
                let message = "the database answered a commit with fewer results than it was sent statements";
                Err(Failure { broken: true, ..error::new(ErrorKind::Connection, message).into() })
            }
        }
    }

    /// Rolls back. The answer may be the error of a statement that was cut short, and a cancel
    /// request that comes too late for its statement may hit this one: it is then said again.
    pub(in crate::interfaces::db) async fn rollback(&mut self) -> Result<Left, Failure> {
        self.cursors.clear();
        for _ in 0..4 {
            let sent = self.send(format!("ROLLBACK; {RESET}"), 1).await;
            match (sent.done, sent.result) {
                (1.., Ok(())) => return Ok(self.left()),
                (1.., Err(_)) => return Ok(Left::Something),
                (_, Ok(())) => {}
                (_, Err(error)) => {
                    let failure = Failure::from(error);
                    if failure.broken {
                        return Err(failure);
                    }
                }
            }
        }
        let message = "the rollback failed again and again";
        Err(Failure { broken: true, ..error::new(ErrorKind::Connection, message).into() })
    }

    pub(in crate::interfaces::db) async fn savepoint(&mut self, number: u32) -> Result<(), Failure> {
        self.savepoint = number;
        self.simple(format!("SAVEPOINT innkeeper_{number}")).await
    }

    pub(in crate::interfaces::db) async fn rollback_to(&mut self, number: u32) -> Result<(), Failure> {
        self.cursors.retain(|_, cursor| cursor.savepoint < number);
        self.simple(format!("ROLLBACK TO SAVEPOINT innkeeper_{number}")).await
    }

    pub(in crate::interfaces::db) async fn release(&mut self, number: u32) -> Result<(), Failure> {
        self.simple(format!("RELEASE SAVEPOINT innkeeper_{number}")).await
    }

    pub(super) async fn simple(&mut self, sql: String) -> Result<(), Failure> {
        Ok(self.send(sql, usize::MAX).await.result?)
    }

    /// Sends several statements in one message. What comes after the first `awaited` of them
    /// has to be there soon.
    async fn send(&mut self, sql: String, awaited: usize) -> Sent {
        let mut answers = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_many(&mut self.inner);
        let mut done = 0;
        loop {
            let answer = answers.try_next();
            let answer = if done < awaited {
                answer.await
            } else {
                timeout(PATIENCE, answer).await.unwrap_or_else(|elapsed| {
                    Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed)))
                })
            };
            match answer {
                Ok(Some(Either::Left(_completed))) => done += 1,
                Ok(Some(Either::Right(_row))) => {}
                Ok(None) => return Sent { done, result: Ok(()) },
                Err(error) => return Sent { done, result: Err(error) },
            }
        }
    }

    fn left(&self) -> Left {
        if self.hang_up || self.statements.are_too_many() { Left::Something } else { Left::Nothing }
    }

    /// Forgets every prepared statement, on both sides.
    pub(super) async fn forget_statements(&mut self) -> Result<(), sqlx::Error> {
        self.statements.clear();
        self.inner.clear_cached_statements().await
    }

    /// PostgreSQL takes any name for a place to look in; a wrong one would only show in every
    /// statement.
    async fn look_for_schema(&mut self, schema: &str, grant: &Grant) -> Result<(), Failure> {
        let look = "SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE'), current_user::pg_catalog.text \
                    FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) $1::pg_catalog.name";
        let found = sqlx::query(look).persistent(false).bind(schema).fetch_optional(&mut self.inner).await?;
        let plugin = &grant.plugin;
        let message = match found {
            None => format!(
                "schema `{schema}` of plugin `{plugin}` does not exist in this database: `CREATE SCHEMA {}`",
                quote(schema)
            ),
            Some(row) if !row.try_get::<bool, _>(0)? => format!(
                "plugin `{plugin}` may not use schema `{schema}`: `GRANT USAGE ON SCHEMA {} TO {}`",
                quote(schema),
                quote(&row.try_get::<String, _>(1)?)
            ),
            Some(_) => {
                self.schema_found = true;
                return Ok(());
            }
        };
        Err(error::new(ErrorKind::Denied, message).into())
    }

    fn refused_role(&self, role: &str, grant: &Grant, error: sqlx::Error) -> Failure {
        let failure = Failure::from(error);
        let refusal = match failure.error.code.as_deref() {
            // invalid_parameter_value
            Some("22023") => no_role(role, grant),
            Some("42501") => {
                let message = format!(
                    "plugin `{}` may not take on the role `{role}`: `GRANT {} TO {}`",
                    grant.plugin,
                    quote(role),
                    quote(&self.login)
                );
                error::new(ErrorKind::Denied, message)
            }
            _ => return failure,
        };
        Error { code: failure.error.code.clone(), ..refusal }.into()
    }
}

/// Everything that a transaction begins with. None of it takes a snapshot of the database: that
/// is left to the first statement of the plugin.
fn begin_message(begin: &Begin<'_>, number: u64) -> String {
    let isolation = match begin.purpose {
        Purpose::Statement(..) => None,
        Purpose::Guest(options) => options.isolation,
    };
    let isolation = match isolation {
        None => "",
        Some(Isolation::ReadCommitted) => " ISOLATION LEVEL READ COMMITTED",
        Some(Isolation::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
        Some(Isolation::Serializable) => " ISOLATION LEVEL SERIALIZABLE",
    };
    let access = if begin.read_only() { " READ ONLY" } else { "" };
    let mut message = format!("BEGIN{isolation}{access}");
    if let Some(role) = &begin.grant.role {
        message.push_str(&format!("; SET LOCAL ROLE {}", quote(role)));
    }
    let backstop = begin.caller.remaining().saturating_add(BACKSTOP);
    let longest = begin.grant.statement_timeout.map_or(backstop, |limit| limit.min(backstop));
    message.push_str(&format!("; SET LOCAL statement_timeout = {}", milliseconds(longest)));
    if let Some(pass) = begin.pass() {
        message.push_str(&format!("; SET LOCAL application_name = '{}'", fence::name_of(pass.execution)));
    }
    if matches!(begin.purpose, Purpose::Guest(_)) {
        // The transaction of one statement never waits, and has the session's.
        let idle = milliseconds(backstop);
        message.push_str(&format!("; SET LOCAL idle_in_transaction_session_timeout = {idle}"));
        message.push_str(&format!("; SET LOCAL innkeeper.transaction = '{number}'"));
    }
    message
}

/// The server counts them in 32 bits, and takes 0 for no limit.
fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX).max(1)
}

/// An identifier, as it stands in a statement.
pub(super) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

fn no_role(role: &str, grant: &Grant) -> Error {
    let role = role.replace('\0', "\\0");
    let message = format!(
        "role `{role}` of plugin `{}` does not exist on this server: `CREATE ROLE {}`",
        grant.plugin,
        quote(&role)
    );
    error::new(ErrorKind::Denied, message)
}

/// The answer to the check before COMMIT.
fn not_committed(failure: Failure) -> Failure {
    let (kind, why) = match failure.error.code.as_deref() {
        Some(fence::FENCED_OFF) => return error::fenced_off().into(),
        // in_failed_sql_transaction
        Some("25P02") => (ErrorKind::Statement, "a statement of the transaction had failed"),
        // division_by_zero, undefined_object, no_active_sql_transaction
        Some("22012" | "42704" | "25P01") => {
            (ErrorKind::Closed, "the transaction had ended, or its mark was changed, by a statement")
        }
        _ => return failure,
    };
    Error { code: failure.error.code, ..error::new(kind, format!("nothing was committed: {why}")) }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(quote("plain"), "\"plain\"");
        assert_eq!(quote("a\"; DROP TABLE b; --"), "\"a\"\"; DROP TABLE b; --\"");
    }

    #[test]
    fn a_time_limit_is_never_no_limit() {
        assert_eq!(milliseconds(Duration::ZERO), 1);
        assert_eq!(milliseconds(Duration::from_micros(10)), 1);
        assert_eq!(milliseconds(Duration::MAX), i32::MAX);
    }
}
