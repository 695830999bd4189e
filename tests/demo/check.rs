//! The verdict: exactly the rows that had to go are gone, and all others are identical.

use std::cmp::Ordering;
use std::fmt::Debug;

use anyhow::Result;
use jiff::Timestamp;

use crate::data::{AuditRecord, Data, Session};
use crate::database::Application;

/// What became of the rows of one table.
#[derive(Debug, Default)]
pub struct Verdict {
    pub table: &'static str,
    /// Rows that had to go and are gone.
    pub deleted: usize,
    /// Rows that had to stay and are as they were.
    pub kept: usize,
    /// What is wrong, in sentences. Empty where all is well.
    pub problems: Vec<String>,
}

/// Reads both tables and compares every row with what it was made as.
pub async fn check(application: &Application, data: &Data, now: Timestamp) -> Result<[Verdict; 2]> {
    let sessions = application.sessions().await?;
    let audit_log = application.audit_log().await?;
    Ok([
        compare("sessions", &data.sessions, &sessions, |session| session.is_expired(now)),
        compare("audit_log", &data.audit_log, &audit_log, |record| record.is_old(now)),
    ])
}

/// What rows of either table have.
trait Row: Debug + PartialEq {
    fn id(&self) -> i64;
}

impl Row for Session {
    fn id(&self) -> i64 {
        self.id
    }
}

impl Row for AuditRecord {
    fn id(&self) -> i64 {
        self.id
    }
}

/// Rows of one kind of problem: how many, and the first of them.
struct Wrong {
    count: usize,
    first: String,
}

impl Wrong {
    fn add(&mut self, describe: impl FnOnce() -> String) {
        if self.count == 0 {
            self.first = describe();
        }
        self.count += 1;
    }
}

/// Both slices are in the order of ids.
fn compare<T: Row>(table: &'static str, made: &[T], found: &[T], has_to_go: impl Fn(&T) -> bool) -> Verdict {
    let mut verdict = Verdict { table, ..Verdict::default() };
    let [mut left, mut lost, mut changed, mut foreign] =
        [const { Wrong { count: 0, first: String::new() } }; 4];
    let (mut made, mut found) = (made.iter().peekable(), found.iter().peekable());
    loop {
        let order = match (made.peek(), found.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(made), Some(found)) => made.id().cmp(&found.id()),
        };
        let made = if order.is_le() { made.next() } else { None };
        let found = if order.is_ge() { found.next() } else { None };
        match (made, found) {
            (Some(made), None) if has_to_go(made) => verdict.deleted += 1,
            (Some(made), None) => lost.add(|| format!("{made:?}")),
            (Some(made), Some(_)) if has_to_go(made) => left.add(|| format!("{made:?}")),
            (Some(made), Some(found)) if made == found => verdict.kept += 1,
            (Some(made), Some(found)) => changed.add(|| format!("{made:?}, which is now {found:?}")),
            (None, Some(found)) => foreign.add(|| format!("{found:?}")),
            (None, None) => break,
        }
    }
    for (wrong, what) in [
        (left, "had to go, still there"),
        (lost, "had to stay, gone"),
        (changed, "had to stay, changed"),
        (foreign, "never made, there all the same"),
    ] {
        if wrong.count > 0 {
            let rows = if wrong.count == 1 { "row" } else { "rows" };
            verdict
                .problems
                .push(format!("{} {rows} of {table}: {what}; the first: {}", wrong.count, wrong.first));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{create_on_server, drop_on_server};

    fn now() -> Timestamp {
        "2026-11-23T04:05:06Z".parse().unwrap()
    }

    /// What a plugin that does its work leaves behind, and three that do not.
    struct Statements {
        cleanup: &'static str,
        lose_a_living_one: &'static str,
        change_a_byte: &'static str,
        change_a_time: &'static str,
    }

    const SQLITE: Statements = Statements {
        cleanup: "DELETE FROM sessions WHERE expires_at < unixepoch('2026-11-23 04:05:06');
                  DELETE FROM audit_log WHERE recorded_at < unixepoch('2026-11-23 04:05:06', '-90 days')",
        lose_a_living_one: "DELETE FROM sessions WHERE id = (SELECT max(id) FROM sessions WHERE expires_at IS NULL)",
        change_a_byte: "UPDATE sessions SET data = CAST(data || x'00' AS BLOB) WHERE id = (SELECT min(id) FROM sessions)",
        change_a_time: "UPDATE audit_log SET recorded_at = recorded_at + 1 WHERE id = (SELECT max(id) FROM audit_log)",
    };

    const POSTGRES: Statements = Statements {
        cleanup: "DELETE FROM sessions WHERE expires_at < '2026-11-23 04:05:06Z';
                  DELETE FROM audit_log WHERE recorded_at < timestamptz '2026-11-23 04:05:06Z' - interval '2160 hours'",
        lose_a_living_one: SQLITE.lose_a_living_one,
        change_a_byte: r"UPDATE sessions SET data = data || '\x00' WHERE id = (SELECT min(id) FROM sessions)",
        change_a_time: "UPDATE audit_log SET recorded_at = recorded_at + interval '1 microsecond'
                        WHERE id = (SELECT max(id) FROM audit_log)",
    };

    async fn problems(application: &Application, data: &Data) -> Vec<String> {
        let verdicts = check(application, data, now()).await.unwrap();
        verdicts.into_iter().flat_map(|verdict| verdict.problems).collect()
    }

    async fn every_difference_is_found(application: Application, statements: &Statements) {
        let data = Data::generate(3, now(), 6_000, 300);
        application.fill(&data).await.unwrap();

        let untouched = problems(&application, &data).await;
        assert_eq!(untouched.len(), 2, "{untouched:?}");
        assert!(untouched.iter().all(|problem| problem.contains("had to go, still there")));

        application.change(statements.cleanup).await.unwrap();
        let [sessions, audit_log] = check(&application, &data, now()).await.unwrap();
        assert!(sessions.problems.is_empty() && audit_log.problems.is_empty(), "{sessions:?} {audit_log:?}");
        assert_eq!(sessions.deleted, data.sessions.iter().filter(|s| s.is_expired(now())).count());
        assert_eq!(sessions.deleted + sessions.kept, 6_000);
        assert_eq!(audit_log.deleted + audit_log.kept, 300);

        application.change(statements.lose_a_living_one).await.unwrap();
        let found = problems(&application, &data).await;
        assert!(
            found.len() == 1 && found[0].starts_with("1 row of sessions: had to stay, gone"),
            "{found:?}"
        );

        application.change(statements.change_a_byte).await.unwrap();
        application.change(statements.change_a_time).await.unwrap();
        let found = problems(&application, &data).await;
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[1].starts_with("1 row of sessions: had to stay, changed"), "{found:?}");
        assert!(found[2].starts_with("1 row of audit_log: had to stay, changed"), "{found:?}");

        application
            .change("UPDATE audit_log SET id = -1 WHERE id = (SELECT min(id) FROM audit_log)")
            .await
            .unwrap();
        let found = problems(&application, &data).await;
        assert!(found.iter().any(|problem| problem.contains("never made, there")), "{found:?}");
        application.close().await;
    }

    #[tokio::test]
    async fn on_sqlite_one_row_too_many_or_one_byte_that_differs_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let application = Application::open_sqlite(&folder.path().join("app.db")).await.unwrap();
        every_difference_is_found(application, &SQLITE).await;
    }

    #[tokio::test]
    async fn on_postgres_one_row_too_many_or_one_byte_that_differs_is_found() {
        let server = std::env::var("INNKEEPER_TEST_POSTGRES_URL")
            .expect("the tests need a PostgreSQL; `cargo xtask test` starts one");
        let name = format!("innkeeper_demo_test_{}", uuid::Uuid::new_v4().simple());
        let url = create_on_server(&server, &name).await.unwrap();
        let application = Application::open_postgres(&url).await.unwrap();
        every_difference_is_found(application, &POSTGRES).await;
        drop_on_server(&server, &name).await.unwrap();
    }
}
