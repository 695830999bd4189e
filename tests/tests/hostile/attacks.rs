//! What hostile plugins say, and what they should be answered.

use innkeeper::interfaces::db::ErrorKind;
use innkeeper_tests::database::Engine;

/// One statement.
#[derive(Clone, Debug)]
pub struct Attack {
    pub sql: String,
    pub expect: Expect,
}

/// How a statement should be answered. Whatever the answer, nothing of it is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The host does not let it through.
    Denied,
    /// The host or the database does not let it through.
    Refused,
    /// It may do what it does, within its own transaction and session.
    Contained,
}

use Expect::{Contained, Denied, Refused};

impl Expect {
    /// The kinds of error that fit, where it must not be answered `ok`.
    pub fn kinds(self) -> Option<&'static [ErrorKind]> {
        match self {
            Denied => Some(&[ErrorKind::Denied]),
            Refused => Some(&[ErrorKind::Denied, ErrorKind::Statement]),
            Contained => None,
        }
    }

    /// Whether this answer of a guest's, `"ok"` or a kind, fits.
    pub fn allows(self, answer: &str) -> bool {
        self.kinds().is_none_or(|kinds| kinds.iter().any(|kind| name(*kind) == answer))
    }
}

/// The kinds that refusals have, as guests are told.
fn name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Denied => "denied",
        ErrorKind::Statement => "statement",
        _ => "another kind",
    }
}

/// Every attack that fits an engine, as it is.
pub fn all(engine: Engine) -> Vec<Attack> {
    let lists: &[(Expect, &[&str])] = match engine {
        Engine::Postgres => &[
            (Denied, TRANSACTION_CONTROL),
            (Denied, POSTGRES_KEYWORDS),
            (Refused, POSTGRES_REFUSED),
            (Refused, POSTGRES_BELOW),
            (Contained, POSTGRES_SETTINGS),
            (Contained, POSTGRES_LEFTOVERS),
            (Contained, POSTGRES_SIGNALS),
        ],
        Engine::Sqlite => &[
            (Denied, TRANSACTION_CONTROL),
            (Denied, SQLITE_KEYWORDS),
            (Refused, SQLITE_REFUSED),
            (Contained, SQLITE_CONTAINED),
        ],
    };
    let attack = |expect: Expect, sql: &&str| Attack { sql: (*sql).to_owned(), expect };
    lists.iter().flat_map(|(expect, list)| list.iter().map(|sql| attack(*expect, sql))).collect()
}

/// Every statement that would end or nest the transaction, hidden in every way.
pub fn hidden() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for sql in TRANSACTION_CONTROL {
        for (before, after) in DISGUISES {
            attacks.push(Attack { sql: format!("{before}{sql}{after}"), expect: Refused });
        }
        attacks.push(Attack { sql: sql.to_lowercase(), expect: Refused });
        attacks.push(Attack { sql: sql.replace(' ', "/**/"), expect: Refused });
        // Full-width letters, which are no keyword anywhere.
        let wide = sql.chars().map(|c| if c.is_ascii_uppercase() { widen(c) } else { c }).collect();
        attacks.push(Attack { sql: wide, expect: Refused });
    }
    attacks
}

fn widen(c: char) -> char {
    char::from_u32(u32::from(c) + 0xfee0).unwrap_or(c)
}

/// On both engines.
const TRANSACTION_CONTROL: &[&str] = &[
    "COMMIT",
    "COMMIT AND CHAIN",
    "COMMIT WORK",
    "END",
    "END TRANSACTION",
    "ROLLBACK",
    "ROLLBACK AND CHAIN",
    "ROLLBACK TO SAVEPOINT innkeeper_1",
    "ABORT",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "START TRANSACTION",
    "SAVEPOINT s",
    "RELEASE SAVEPOINT s",
    "PREPARE TRANSACTION 'x'",
    "COMMIT PREPARED 'x'",
    "ROLLBACK PREPARED 'x'",
];

/// What comes before and after a statement to hide it.
const DISGUISES: &[(&str, &str)] = &[
    ("", ";"),
    ("", " -- x"),
    (";", ""),
    (" ;\t;\r\n; ", ""),
    ("-- x\n", ""),
    ("-- x\r", ""),
    ("--\r\n", ""),
    ("/* x */", ""),
    ("/* ' */ /* \" */", ""),
    ("/* -- */\n", ""),
    ("/**/-- */\n;/* ; */", ""),
    ("/* /* x */ */", ""),
    ("/* /* x */", ""),
    ("/*/**/*/", ""),
    ("\u{b}", ""),
    ("\u{c}", ""),
    ("\u{a0}", ""),
    ("\u{2003}", ""),
    ("\u{200b}", ""),
    ("\u{feff}", ""),
    ("\u{85}", ""),
    ("\u{1c}", ""),
    ("\u{0}", ""),
    ("SELECT 1;", ""),
    ("SELECT 1;\u{a0}", ""),
    ("SELECT 1;\u{feff}", ""),
    ("SELECT 1;\u{b}", ""),
    ("SELECT 1;/*", "*/;x"),
    ("SELECT 1; -- x\n", ""),
    ("SELECT ';'; ", ""),
    ("SELECT '\\'; ", "; --'"),
    ("SELECT $$;$$; ", ""),
    ("SELECT E'\\''; ", ""),
    ("SELECT \";\" FROM (SELECT 1 AS \";\"); ", ""),
    ("(", ")"),
    ("$$", "$$"),
    ("$x$", "$x$"),
    ("'", "'"),
    ("EXPLAIN ", ""),
    ("EXPLAIN ANALYZE ", ""),
    ("EXPLAIN QUERY PLAN ", ""),
    ("EXPLAIN (ANALYZE) ", ""),
    ("WITH x AS (SELECT 1) ", ""),
    ("DO $$ BEGIN ", "; END $$"),
    ("DO $x$ BEGIN EXECUTE $y$", "$y$; END $x$"),
    ("DO LANGUAGE plpgsql $$ BEGIN PERFORM 1; ", "; EXCEPTION WHEN division_by_zero THEN NULL; END $$"),
    ("CREATE PROCEDURE p() LANGUAGE sql BEGIN ATOMIC ", "; END"),
    ("CREATE TRIGGER x AFTER INSERT ON marks BEGIN ", "; END"),
    ("/*!", "*/"),
    ("\\", ""),
    ("ALTER TABLE marks ADD x integer; ", ""),
];

/// Statements of PostgreSQL that the host does not let through.
const POSTGRES_KEYWORDS: &[&str] = &[
    "SET ROLE postgres",
    "SET LOCAL ROLE NONE",
    "RESET ROLE",
    "SET SESSION AUTHORIZATION postgres",
    "RESET SESSION AUTHORIZATION",
    "SET search_path = pg_temp",
    "SET LOCAL search_path = pg_temp",
    "SET statement_timeout = 0",
    "SET LOCAL statement_timeout = 0",
    "SET transaction_read_only = off",
    "SET TRANSACTION READ WRITE",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET session_replication_role = replica",
    "SET CONSTRAINTS ALL DEFERRED",
    "SET application_name = 'innkeeper'",
    "RESET ALL",
    "RESET statement_timeout",
    "DISCARD ALL",
    "DISCARD PLANS",
    "DISCARD TEMP",
    "DEALLOCATE ALL",
    "DEALLOCATE sqlx_s_1",
    "PREPARE x AS SELECT 1",
    "EXECUTE sqlx_s_1",
    "COPY marks FROM PROGRAM 'touch /tmp/innkeeper-was-here'",
    "COPY marks TO PROGRAM 'cat'",
    "COPY marks FROM STDIN",
    "COPY marks TO STDOUT",
    "COPY marks FROM '/etc/passwd'",
    "COPY (SELECT 1) TO '/tmp/innkeeper-was-here'",
    "LISTEN evil",
    "UNLISTEN *",
    "LOAD 'auto_explain'",
    "CHECKPOINT",
    "VACUUM",
    "VACUUM FULL marks",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "FETCH ALL FROM c",
    "MOVE c",
    "CLOSE ALL",
    "REASSIGN OWNED BY CURRENT_USER TO postgres",
    "SECURITY LABEL ON TABLE marks IS 'x'",
    "IMPORT FOREIGN SCHEMA x FROM SERVER y INTO z",
];

/// Statements that begin like allowed ones and that PostgreSQL does not let a login without
/// rights say, or nobody in a transaction.
const POSTGRES_REFUSED: &[&str] = &[
    "ALTER SYSTEM SET work_mem = '1GB'",
    "ALTER DATABASE postgres SET search_path = evil",
    "ALTER ROLE postgres SET search_path = evil",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "CREATE ROLE innkeeper_was_here SUPERUSER",
    "CREATE DATABASE innkeeper_was_here",
    "CREATE INDEX CONCURRENTLY x ON marks (attack)",
    "CREATE TABLESPACE x LOCATION '/tmp'",
    "CREATE EXTENSION file_fdw",
    "CREATE EXTENSION dblink",
    "CREATE FUNCTION system(text) RETURNS integer LANGUAGE c AS '/lib/x86_64-linux-gnu/libc.so.6', 'system'",
    "CREATE EVENT TRIGGER x ON ddl_command_start EXECUTE FUNCTION late()",
    "CREATE SUBSCRIPTION x CONNECTION 'host=localhost' PUBLICATION y",
    "DROP DATABASE postgres",
    "REINDEX DATABASE CONCURRENTLY postgres",
    "GRANT postgres TO CURRENT_USER",
    "DROP TABLE public.marks",
    "SELECT * INTO public.stolen FROM marks",
    "LOCK TABLE pg_catalog.pg_class IN ACCESS EXCLUSIVE MODE",
    "UPDATE pg_catalog.pg_database SET datallowconn = false",
    "DELETE FROM pg_catalog.pg_proc",
    "SELECT * FROM pg_catalog.pg_authid",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/innkeeper-was-here')",
    "SELECT pg_reload_conf()",
    "SELECT pg_rotate_logfile()",
    "SELECT pg_switch_wal()",
    "SELECT pg_create_restore_point('x')",
    "SELECT set_config('role', 'postgres', false)",
    "SELECT set_config('session_authorization', 'postgres', false)",
    "SELECT set_config('session_replication_role', 'replica', false)",
    "SELECT set_config('log_statement', 'all', false)",
    "SELECT set_config('dynamic_library_path', '/tmp', false)",
    "SELECT set_config('session_preload_libraries', 'x', false)",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
     WHERE usename <> CURRENT_USER AND datname = current_database()",
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
     WHERE usename <> CURRENT_USER AND datname = current_database()",
    "SELECT 1; SELECT 2",
    "INSERT INTO marks VALUES (-1, -1); INSERT INTO marks VALUES (-1, -2)",
    "CREATE TABLE x (y integer); DROP TABLE x",
];

/// Transaction control below the top level, where PostgreSQL itself refuses it.
const POSTGRES_BELOW: &[&str] = &[
    "CALL finish()",
    "CALL begin_again()",
    "DO $$ BEGIN CALL finish(); END $$",
    "SELECT finish_in_a_function()",
    "DO $$ BEGIN COMMIT AND CHAIN; END $$",
    "DO $$ BEGIN EXECUTE 'COM' || 'MIT'; END $$",
    "DO $$ BEGIN EXECUTE 'PREPARE TRANSACTION ''x'''; END $$",
    "DO $$ BEGIN EXECUTE 'COPY marks FROM STDIN'; END $$",
    "DO $$ BEGIN EXECUTE 'COPY marks TO PROGRAM ''cat'''; END $$",
    "DO $$ BEGIN EXECUTE 'SET SESSION AUTHORIZATION postgres'; END $$",
    "DO $$ BEGIN EXECUTE 'SET ROLE postgres'; END $$",
    "DO $$ BEGIN EXECUTE 'DISCARD ALL'; END $$",
    "DO $$ BEGIN EXECUTE 'VACUUM'; END $$",
    "DO $$ BEGIN CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE sql AS 'COMMIT'; PERFORM pg_temp.f(); END $$",
];

/// Settings that a login may change: they last no longer than the call.
const POSTGRES_SETTINGS: &[&str] = &[
    "SELECT set_config('role', 'none', true)",
    "SELECT set_config('role', 'none', false)",
    "SELECT set_config('search_path', 'pg_temp', false)",
    "SELECT set_config('search_path', 'pg_temp', true)",
    "SELECT set_config('statement_timeout', '1', false)",
    "SELECT set_config('statement_timeout', '424242', false)",
    "SELECT set_config('statement_timeout', '0', true)",
    "SELECT set_config('lock_timeout', '1', false)",
    "SELECT set_config('idle_in_transaction_session_timeout', '1', false)",
    "SELECT set_config('idle_session_timeout', '1', false)",
    "SELECT set_config('transaction_read_only', 'on', true)",
    "SELECT set_config('default_transaction_read_only', 'on', false)",
    "SELECT set_config('default_transaction_isolation', 'serializable', false)",
    "SELECT set_config('default_transaction_deferrable', 'on', false)",
    "SELECT set_config('application_name', 'innkeeper', false)",
    "SELECT set_config('client_encoding', 'LATIN1', false)",
    "SELECT set_config('standard_conforming_strings', 'off', false)",
    "SELECT set_config('DateStyle', 'SQL, DMY', false)",
    "SELECT set_config('IntervalStyle', 'sql_standard', false)",
    "SELECT set_config('TimeZone', 'Asia/Kathmandu', false)",
    "SELECT set_config('bytea_output', 'escape', false)",
    "SELECT set_config('extra_float_digits', '-15', false)",
    "SELECT set_config('client_min_messages', 'debug5', false)",
    "SELECT set_config('row_security', 'off', false)",
    "SELECT set_config('plan_cache_mode', 'force_generic_plan', false)",
    "SELECT set_config('enable_seqscan', 'off', false)",
    "SELECT set_config('default_tablespace', 'nowhere', false)",
    "SELECT set_config('innkeeper.test', 'kept', false)",
    "DO $$ BEGIN EXECUTE 'SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY'; END $$",
    "DO $$ BEGIN EXECUTE 'SET TRANSACTION READ ONLY'; END $$",
    "DO $$ BEGIN EXECUTE 'SET search_path = pg_temp'; END $$",
    "DO $$ BEGIN EXECUTE 'SET CONSTRAINTS ALL DEFERRED'; END $$",
    "DO $$ BEGIN EXECUTE 'RESET ALL'; END $$",
    "CREATE FUNCTION pg_temp.f() RETURNS integer LANGUAGE sql SET search_path = pg_temp AS 'SELECT 1'",
];

/// What a session has besides settings, and what a login may make of it.
const POSTGRES_LEFTOVERS: &[&str] = &[
    "SELECT pg_advisory_lock(4242)",
    "SELECT pg_advisory_lock_shared(4243)",
    "SELECT pg_try_advisory_lock(g) FROM generate_series(1, 300) g",
    "SELECT pg_advisory_xact_lock(4244)",
    "SELECT pg_advisory_unlock_all()",
    "CREATE TEMP TABLE left_behind (x integer)",
    "CREATE TEMP TABLE left_behind (x integer) ON COMMIT DELETE ROWS",
    "CREATE TEMP VIEW left_behind AS SELECT 1 AS x",
    "CREATE TEMP SEQUENCE left_behind",
    "SELECT 1 AS x INTO TEMP left_behind",
    "CREATE TABLE pg_temp.marks (attack bigint, part bigint)",
    "CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'infinity'::timestamptz $$",
    "DO $$ BEGIN EXECUTE 'LISTEN evil'; END $$",
    "NOTIFY evil, 'x'",
    "SELECT pg_notify('evil', repeat('x', 7000))",
    "DO $$ BEGIN EXECUTE 'DECLARE held CURSOR WITH HOLD FOR SELECT g FROM generate_series(1, 9) g'; END $$",
    "DO $$ BEGIN EXECUTE 'DECLARE c CURSOR FOR SELECT 1'; END $$",
    "DO $$ BEGIN EXECUTE 'CLOSE ALL'; END $$",
    "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$",
    "DO $$ BEGIN EXECUTE 'DISCARD PLANS'; END $$",
    "DO $$ BEGIN BEGIN RAISE EXCEPTION 'x'; EXCEPTION WHEN OTHERS THEN NULL; END; END $$",
    "DO $$ BEGIN FOR i IN 1..2000 LOOP RAISE NOTICE '%', repeat('x', 1000); END LOOP; END $$",
    "EXPLAIN ANALYZE EXECUTE sqlx_s_1",
    // Its deferred trigger does most of the above at the commit.
    "INSERT INTO late VALUES (1)",
    "SELECT lo_create(0)",
    "SELECT nextval('late_sequence'), setseed(0.5)",
    "SELECT pg_export_snapshot()",
    "LOCK TABLE late IN ACCESS EXCLUSIVE MODE",
    "TRUNCATE late",
];

/// Blocks that interfere with the statements that the host keeps prepared on a connection. They
/// reach no further than the connections of their own grant, where a call may be told to run
/// again.
pub const POSTGRES_PREPARED: &[&str] = &[
    "DO $$ BEGIN EXECUTE 'PREPARE left_behind AS SELECT 1'; END $$",
    "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$",
    "DO $$ BEGIN FOR i IN 1..300 LOOP BEGIN EXECUTE 'PREPARE sqlx_s_' || i || ' AS SELECT 1'; \
     EXCEPTION WHEN duplicate_prepared_statement THEN NULL; END; END LOOP; END $$",
    "DO $$ DECLARE s text; BEGIN FOR s IN SELECT name FROM pg_prepared_statements LOOP \
     EXECUTE 'DEALLOCATE ' || s; EXECUTE 'PREPARE ' || s || ' AS SELECT 1, 2, 3'; END LOOP; END $$",
    "DO $$ DECLARE s text; BEGIN FOR s IN SELECT name FROM pg_prepared_statements LOOP \
     EXECUTE 'DEALLOCATE ' || s; EXECUTE 'PREPARE ' || s || ' AS SELECT 1::bigint, 2'; END LOOP; END $$",
];

/// Signals among the server processes of its own login, which PostgreSQL allows.
const POSTGRES_SIGNALS: &[&str] = &[
    "SELECT pg_terminate_backend(pg_backend_pid())",
    "SELECT pg_cancel_backend(pg_backend_pid())",
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
     WHERE usename = CURRENT_USER AND pid <> pg_backend_pid()",
    "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity \
     WHERE usename = CURRENT_USER AND pid <> pg_backend_pid()",
];

/// Statements of SQLite that the host does not let through.
const SQLITE_KEYWORDS: &[&str] = &[
    "ATTACH ':memory:' AS x",
    "ATTACH DATABASE 'innkeeper-was-here.db' AS x",
    "DETACH main",
    "VACUUM",
    "VACUUM main INTO 'innkeeper-was-here.db'",
    "PRAGMA query_only = 1",
    "PRAGMA foreign_keys = 0",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA main.journal_mode = OFF",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA writable_schema = 1",
    "PRAGMA schema_version = 7",
    "PRAGMA user_version = 7",
    "PRAGMA application_id = 7",
    "PRAGMA synchronous = 0",
    "PRAGMA temp_store_directory = '/tmp'",
    "PRAGMA trusted_schema = 1",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA mmap_size = 1000000000",
    "PRAGMA case_sensitive_like = 1",
    "PRAGMA ignore_check_constraints = 1",
    "PRAGMA recursive_triggers = 1",
    "PRAGMA hard_heap_limit = 1",
    "PRAGMA busy_timeout = 1000000",
    "PRAGMA shrink_memory",
    "PRAGMA table_info(marks)",
    "EXPLAIN PRAGMA journal_mode = DELETE",
    "EXPLAIN QUERY PLAN ATTACH ':memory:' AS x",
];

/// Statements of SQLite that begin like allowed ones.
const SQLITE_REFUSED: &[&str] = &[
    "SELECT load_extension('/tmp/x.so')",
    "SELECT load_extension('/tmp/x.so', 'sqlite3_x_init')",
    "SELECT fts3_tokenizer('simple', x'4141414141414141')",
    "UPDATE sqlite_master SET sql = 'x'",
    "DELETE FROM sqlite_schema",
    "INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 2, 'CREATE TABLE x (y)')",
    "DROP TABLE sqlite_master",
    "SELECT writefile('innkeeper-was-here', 'x')",
    "SELECT readfile('/etc/passwd')",
    "SELECT edit('x', 'sh')",
    "SELECT * FROM pragma_optimize(65534)",
    "SELECT * FROM pragma_journal_mode('delete')",
    "SELECT * FROM pragma_wal_checkpoint('TRUNCATE')",
    "SELECT * FROM pragma_writable_schema(1)",
    "CREATE TABLE x.y (z)",
    "CREATE VIRTUAL TABLE x USING csv(filename = '/etc/passwd')",
    "SELECT 1; SELECT 2",
    "INSERT INTO marks VALUES (-1, -1); INSERT INTO marks VALUES (-1, -2)",
    "CREATE TABLE x (y integer); DROP TABLE x",
    // A plugin never learns where its database is.
    "SELECT file FROM pragma_database_list",
];

/// What SQLite may do within a transaction.
const SQLITE_CONTAINED: &[&str] = &[
    "CREATE TEMP TABLE left_behind (x integer)",
    "CREATE TEMP TABLE late (x integer)",
    "CREATE TEMP VIEW left_behind AS SELECT 1 AS x",
    "CREATE TEMP TRIGGER left_behind BEFORE INSERT ON marks BEGIN SELECT RAISE(ROLLBACK, 'gone'); END",
    "INSERT OR ROLLBACK INTO late VALUES (1)",
    "INSERT INTO late VALUES (1) ON CONFLICT DO NOTHING",
    "INSERT OR FAIL INTO late SELECT value FROM (SELECT 5 AS value UNION ALL SELECT 1)",
    "UPDATE OR ROLLBACK late SET x = 1",
    // Its trigger rolls back.
    "INSERT INTO trap VALUES (1)",
    "DELETE FROM late WHERE x < 0",
    "SELECT * FROM pragma_table_info('marks')",
    "CREATE TABLE y AS SELECT 1 AS x",
    "ANALYZE",
    "REINDEX",
    "SELECT sqlite_compileoption_get(0), sqlite_version(), last_insert_rowid(), changes()",
];

/// Queries for everything that an attack could have left in a session. Each answers the same
/// before and after.
pub fn look(engine: Engine) -> Vec<String> {
    let queries: &[&str] = match engine {
        Engine::Postgres => &[
            "select current_user::text, session_user::text, current_setting('role'), \
             current_setting('search_path'), current_setting('transaction_read_only'), \
             current_setting('transaction_isolation'), current_setting('application_name'), \
             coalesce(current_setting('innkeeper.test', true), '')",
            // The limits may be the host's own, and differ from call to call.
            "select current_setting('statement_timeout') in ('1ms', '424242ms'), \
             current_setting('lock_timeout') = '1ms', \
             current_setting('idle_in_transaction_session_timeout') = '1ms'",
            "select coalesce(string_agg(name || '=' || setting, ',' order by name), '') from pg_settings \
             where source = 'session' and name not like '%timeout' and name not like 'transaction_%' \
             and name not in ('role', 'search_path', 'application_name')",
            "select (select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'), \
             (select count(*) from pg_class where relnamespace = pg_my_temp_schema()), \
             (select count(*) from pg_proc where pronamespace = pg_my_temp_schema()), \
             (select count(*) from pg_listening_channels()), \
             (select count(*) from pg_cursors where is_holdable)",
        ],
        Engine::Sqlite => &[
            "select count(*) from sqlite_temp_master",
            "select 'a' like 'A'",
            "select * from pragma_foreign_keys",
            "select * from pragma_journal_mode",
            "select * from pragma_query_only",
            "select * from pragma_synchronous",
            "select * from pragma_recursive_triggers",
            "select * from pragma_trusted_schema",
            "select * from pragma_writable_schema",
            "select * from pragma_locking_mode",
            "select * from pragma_user_version",
            "select name from pragma_database_list",
        ],
    };
    queries.iter().map(|query| (*query).to_owned()).collect()
}
