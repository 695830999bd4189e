//! What a plugin may say in SQL: the first keyword of a statement, by the engine's own
//! lexical rules, must be on a list.
//!
//! Pure. Whoever could say `COMMIT` could end the transaction that the host answers for. The
//! check fails closed: what it does not recognise is refused. That a text holds one statement
//! only is checked by the database (PostgreSQL's extended protocol) or by its parser (see
//! [`super::sqlite`]), and below the top level (`DO`, `CALL`) PostgreSQL itself refuses to end
//! a transaction that was begun outside.

use super::{Error, ErrorKind, error};

/// The lexical rules to read by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Nested comments, and a line ends at LF or CR.
    Postgres,
    /// Comments do not nest, and a line ends at LF only.
    Sqlite,
}

/// What a statement is, as far as its first keyword says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// A change of rows, whose number `execute` answers. Everything else changes none.
    pub(super) changes_rows: bool,
    /// It reads and does nothing else. Others may do so too.
    pub(super) only_reads: bool,
    /// It may change what tables and types there are, and so what cached statements mean.
    pub(super) changes_schema: bool,
}

const POSTGRES: &[&str] = &[
    "ALTER", "ANALYZE", "CALL", "COMMENT", "CREATE", "DELETE", "DO", "DROP", "EXPLAIN", "GRANT", "INSERT",
    "LOCK", "MERGE", "NOTIFY", "REFRESH", "REINDEX", "REVOKE", "SELECT", "SHOW", "TABLE", "TRUNCATE",
    "UPDATE", "VALUES", "WITH",
];

const SQLITE: &[&str] = &[
    "ALTER", "ANALYZE", "CREATE", "DELETE", "DROP", "EXPLAIN", "INSERT", "REINDEX", "REPLACE", "SELECT",
    "UPDATE", "VALUES", "WITH",
];

/// Bytes of the longest text. The host and PostgreSQL keep the texts of a hundred statements
/// for each connection, prepared.
const LONGEST: usize = 1024 * 1024;

/// Checks that a plugin may run this text.
///
/// # Errors
/// Where it is too long or empty, or starts with something that is not on the engine's list. The message
/// says what to use instead.
pub(super) fn check(sql: &str, dialect: Dialect) -> Result<Statement, Error> {
    if sql.len() > LONGEST {
        let message = format!("the statement has {} bytes, and {LONGEST} are allowed", sql.len());
        let hint = "give data as parameters ($1), not in the text";
        return Err(Error { hint: Some(hint.to_owned()), ..error::new(ErrorKind::LimitExceeded, message) });
    }
    if sql.contains('\0') {
        return Err(refused("the statement contains a NUL character"));
    }
    let keyword = Scanner { rest: sql, dialect }.allowed_keyword()?;
    Ok(Statement {
        changes_rows: matches!(
            keyword.as_str(),
            "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "MERGE" | "WITH" | "CREATE"
        ) && !(keyword == "CREATE" && dialect == Dialect::Sqlite),
        only_reads: dialect == Dialect::Sqlite && matches!(keyword.as_str(), "SELECT" | "VALUES"),
        changes_schema: matches!(
            keyword.as_str(),
            "ALTER" | "CALL" | "CREATE" | "DO" | "DROP" | "GRANT" | "REVOKE" | "REFRESH"
        ),
    })
}

struct Scanner<'a> {
    rest: &'a str,
    dialect: Dialect,
}

impl<'a> Scanner<'a> {
    fn allowed_keyword(mut self) -> Result<String, Error> {
        let keyword = self.keyword()?;
        // SQLite carries out some pragmas when it compiles them, explained or not.
        if keyword == "EXPLAIN" && self.dialect == Dialect::Sqlite {
            let mut explained = self.keyword()?;
            if explained == "QUERY" {
                let plan = self.keyword()?;
                if plan != "PLAN" {
                    return Err(not_allowed(&plan, self.dialect));
                }
                explained = self.keyword()?;
            }
            if explained == "EXPLAIN" {
                return Err(not_allowed(&explained, self.dialect));
            }
            self.require(&explained)?;
        }
        self.require(&keyword)?;
        Ok(keyword)
    }

    fn require(&self, keyword: &str) -> Result<(), Error> {
        let allowed = match self.dialect {
            Dialect::Postgres => POSTGRES,
            Dialect::Sqlite => SQLITE,
        };
        if allowed.contains(&keyword) { Ok(()) } else { Err(not_allowed(keyword, self.dialect)) }
    }

    /// The next keyword, in capitals, after everything that the engine skips before one.
    fn keyword(&mut self) -> Result<String, Error> {
        self.skip();
        let end = self.rest.find(|c: char| !is_identifier(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if !word.is_empty() {
            return Ok(word.to_ascii_uppercase());
        }
        Err(match rest.chars().next() {
            None => refused("the statement is empty"),
            Some(other) => refused(format!("a statement starts with a keyword, not with {other:?}")),
        })
    }

    fn skip(&mut self) {
        loop {
            let before = self.rest;
            self.rest = self.rest.trim_start_matches(|c| self.is_space(c) || c == ';');
            if self.dialect == Dialect::Postgres {
                // `(SELECT 1) UNION (SELECT 2)`
                self.rest = self.rest.trim_start_matches('(');
            }
            if let Some(comment) = self.rest.strip_prefix("--") {
                let end = comment.find(|c| c == '\n' || (c == '\r' && self.dialect == Dialect::Postgres));
                self.rest = end.map_or("", |end| &comment[end..]);
            } else if self.rest.starts_with("/*") {
                self.rest = self.after_block_comment();
            }
            if self.rest.len() == before.len() {
                return;
            }
        }
    }

    /// White space of both scanners (PostgreSQL's `scan.l`, SQLite's `tokenize.c`). PostgreSQL
    /// 16 also skips a vertical tab; not skipping it refuses the statement.
    fn is_space(&self, c: char) -> bool {
        matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c')
    }

    fn after_block_comment(&self) -> &'a str {
        let bytes = self.rest.as_bytes();
        let (mut at, mut depth) = (2, 1);
        while at + 1 < bytes.len() {
            match &bytes[at..at + 2] {
                b"*/" => {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        return &self.rest[at..];
                    }
                }
                b"/*" if self.dialect == Dialect::Postgres => {
                    depth += 1;
                    at += 2;
                }
                _ => at += 1,
            }
        }
        ""
    }
}

/// What may stand in an identifier of either engine, so that a longer word that only begins
/// like a keyword is not taken for it.
fn is_identifier(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii()
}

fn refused(message: impl Into<String>) -> Error {
    error::new(ErrorKind::Statement, message)
}

fn not_allowed(keyword: &str, dialect: Dialect) -> Error {
    let instead = match keyword {
        "BEGIN" | "START" => "transactions are opened by `begin` of the db interface".to_owned(),
        "COMMIT" | "END" | "ROLLBACK" | "ABORT" => {
            "the transaction belongs to the host, and ends by `commit` or `rollback` of the db interface, \
             or with the call"
                .to_owned()
        }
        "SAVEPOINT" | "RELEASE" => {
            "savepoints are made by `savepoint`, `rollback-to` and `release` of the db interface".to_owned()
        }
        "SET" | "RESET" | "DISCARD" => "the settings of a connection belong to the host".to_owned(),
        "PREPARE" | "EXECUTE" | "DEALLOCATE" => {
            "the host prepares statements and keeps them; pass the text and its parameters".to_owned()
        }
        "PRAGMA" => "read with a function instead, such as `SELECT * FROM pragma_table_info('t')`; \
                     settings of a connection belong to the host"
            .to_owned(),
        "ATTACH" | "DETACH" => {
            "a plugin uses the databases that the operator grants it, by their names".to_owned()
        }
        "VACUUM" => "it cannot run in a transaction; leave it to the operator".to_owned(),
        "COPY" => "write with `execute-many`, and read with `query` or a cursor".to_owned(),
        "DECLARE" | "FETCH" | "MOVE" | "CLOSE" => {
            "cursors are opened by `open-cursor` of the db interface".to_owned()
        }
        _ => {
            let allowed = match dialect {
                Dialect::Postgres => POSTGRES,
                Dialect::Sqlite => SQLITE,
            };
            format!("a statement starts with one of {}", allowed.join(", "))
        }
    };
    error::new(ErrorKind::Denied, format!("`{keyword}` is not allowed: {instead}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Dialect; 2] = [Dialect::Postgres, Dialect::Sqlite];

    #[test]
    fn what_plugins_need_is_allowed_however_it_is_written() {
        for sql in [
            "SELECT 1",
            "select 1",
            " \t\r\n;; ;SELECT 1",
            "-- a comment\nSELECT 1",
            "/* a comment */ SELECT/**/1",
            "/**/SELECT 1",
            "WITH x AS (SELECT 1) SELECT * FROM x",
            "INSERT INTO t VALUES (1)",
            "CREATE TABLE t(x)",
            "VALUES(1)",
            "EXPLAIN SELECT 1",
        ] {
            for dialect in BOTH {
                assert!(check(sql, dialect).is_ok(), "{dialect:?}: {sql}");
            }
        }
        assert!(check("(SELECT 1) UNION (SELECT 2)", Dialect::Postgres).is_ok());
        assert!(check("/* /* nested */ */ SELECT 1", Dialect::Postgres).is_ok());
        assert!(check("REPLACE INTO t VALUES (1)", Dialect::Sqlite).is_ok());
        assert!(check("EXPLAIN QUERY PLAN SELECT 1", Dialect::Sqlite).is_ok());
    }

    #[test]
    fn the_hosts_transaction_cannot_be_ended_or_nested_however_it_is_written() {
        for keyword in [
            "BEGIN",
            "COMMIT",
            "commit",
            "CoMmIt AND CHAIN",
            "END",
            "ROLLBACK",
            "ABORT",
            "SAVEPOINT a",
            "RELEASE a",
            "START TRANSACTION",
            "PREPARE TRANSACTION 'x'",
            "COMMIT PREPARED 'x'",
            "SET x = 1",
            "RESET ALL",
            "DISCARD ALL",
            "COPY t FROM STDIN",
            "LISTEN x",
            "UNLISTEN x",
            "ATTACH 'x' AS x",
            "DETACH x",
            "VACUUM",
            "VACUUM INTO 'x'",
            "PRAGMA journal_mode = DELETE",
            "LOAD 'x'",
            "DEALLOCATE ALL",
            "CHECKPOINT",
            "DECLARE c CURSOR FOR SELECT 1",
            "SECURITY LABEL",
        ] {
            for hidden in [
                keyword.to_owned(),
                format!(";{keyword}"),
                format!(" \t\r\n\x0c; ;\n{keyword}"),
                format!("-- SELECT\n{keyword}"),
                format!("/* SELECT */{keyword}"),
                format!("/**/;/***/--\n;{keyword};"),
            ] {
                for dialect in BOTH {
                    assert!(check(&hidden, dialect).is_err(), "{dialect:?}: {hidden:?}");
                }
            }
        }
    }

    #[test]
    fn each_engine_ends_its_comments_in_its_own_place() {
        assert!(check("/* /* */ SELECT 1 */ COMMIT", Dialect::Postgres).is_err());
        assert!(check("/* /* */ COMMIT /* */", Dialect::Sqlite).is_err());
        assert!(check("-- SELECT\rCOMMIT", Dialect::Postgres).is_err());
        assert!(check("-- x\rSELECT 1\nCOMMIT", Dialect::Sqlite).is_err());
        assert!(check("EXPLAIN PRAGMA query_only = 0", Dialect::Sqlite).is_err());
        assert!(check("EXPLAIN /* */ QUERY PLAN COMMIT", Dialect::Sqlite).is_err());
    }

    #[test]
    fn what_is_not_recognised_is_refused() {
        for sql in [
            "",
            " ",
            ";",
            "--",
            "/*",
            "/* SELECT 1",
            "\"select\" 1",
            "SELECTx",
            "SELECT_1",
            "SELECT\u{e9}",
            "\u{a0}SELECT 1",
            "\u{b}SELECT 1",
            "\u{feff}SELECT 1",
            "1",
            "'SELECT'",
            "$$SELECT$$",
            "SELECT\x001",
        ] {
            for dialect in BOTH {
                assert!(check(sql, dialect).is_err(), "{dialect:?}: {sql:?}");
            }
        }
    }

    #[test]
    fn a_refusal_says_what_to_use_instead() {
        let error = check("commit", Dialect::Postgres).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
        assert!(error.message.contains("`commit` or `rollback` of the db interface"), "{}", error.message);
    }
}
